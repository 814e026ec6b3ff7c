"""Links between the pages of a list (RFC 8288)."""

from collections.abc import Mapping
from urllib.parse import urlencode

from medmitra_cases.models import MAX_LIMIT, CaseQuery, PageInfo
from medmitra_cases.schemas import OPTIONAL_NAMES

_PAGE_PARAMETERS = frozenset({"limit", "page", "after"})


def link_header(parameters: Mapping[str, list[str]], query: CaseQuery, page_info: PageInfo) -> str:
    """Write the links to the first, the previous, the next and the last page.

    In insertion order ``next`` names a cursor case, not a page number, and so does ``prev`` on a page that
    has a cursor itself. Cases that are inserted or deleted meanwhile then neither repeat nor vanish, and no
    page costs more than the first. All other links have page numbers.

    Args:
        parameters: The query parameters as the client sent them.
        query: The query.
        page_info: The facts about the list.

    Returns:
        The value of the header field; ``prev`` and ``next`` only if there are such pages. Each target is a
        query alone, to be resolved against the URL of the request: a proxy may have changed the rest.
    """
    limit = query.limit or MAX_LIMIT  # a page has one
    by_number = query.sort_by is not None
    cursor = {"after": query.after} if query.after is not None else {}
    # With sort_by, ``after`` is a filter, and the filtered list has a first page of its own.
    first = cursor if by_number else {}
    last_page = max(-(-page_info.total // limit), 1)
    targets: dict[str, Mapping[str, object]] = {"first": first}
    if query.page > 1:
        targets["prev"] = {**cursor, "page": min(query.page - 1, last_page)}
    elif page_info.has_previous:
        previous = page_info.previous_after
        targets["prev"] = {"after": previous} if previous is not None else {}
    if page_info.has_next:
        by_cursor = {"after": page_info.next_after}
        targets["next"] = {**first, "page": query.page + 1} if by_number else by_cursor
    targets["last"] = {**first, "page": last_page}
    kept = [
        (name, values[0])
        for name, values in parameters.items()
        if name == "user_id" or (name in OPTIONAL_NAMES and name not in _PAGE_PARAMETERS)
    ]
    return ", ".join(
        f'<?{urlencode([*kept, ("limit", limit), *target.items()])}>; rel="{relation}"'
        for relation, target in targets.items()
    )
