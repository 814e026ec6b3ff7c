"""Links between the pages of a list (RFC 8288)."""

from collections.abc import Mapping
from urllib.parse import urlencode

from medmitra_cases.models import MAX_LIMIT, CaseQuery, PageInfo
from medmitra_cases.schemas import PARAMETERS, canonical_uuid, empty_is_absent

_PAGE_PARAMETERS = frozenset({"limit", "page", "after"})

# Proxies refuse a response whose header has more than 4 kB. The other fields have at most 1 kB.
MAX_LINK_BYTES = 2_000
# The links that are left out of a longer field, one after the other.
_EXPENDABLE = ("last", "first", "prev", "next")


def link_header(parameters: Mapping[str, list[str]], query: CaseQuery, page_info: PageInfo) -> str:
    """Write the links to the first, the previous, the next and the last page.

    In insertion order ``next`` names a cursor case, not a page number, and so does ``prev`` on a page that
    has a cursor itself. Cases that are inserted or deleted meanwhile then neither repeat nor vanish, and no
    page costs more than the first. All other links have page numbers, also ``next`` if ``after`` cannot have
    the id of its cursor case.

    Args:
        parameters: The query parameters as the client sent them.
        query: The query.
        page_info: The facts about the list.

    Returns:
        The value of the header field, of at most ``MAX_LINK_BYTES``; ``prev`` and ``next`` only if there are
        such pages. It is empty if long filters leave room for no link. Each target is a query alone, to be
        resolved against the URL of the request: a proxy may have changed the rest.
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
        if previous is None or _is_cursor(previous):
            targets["prev"] = {"after": previous} if previous is not None else {}
    if page_info.has_next:
        following = page_info.next_after
        by_cursor = following is not None and _is_cursor(following)
        targets["next"] = {"after": following} if by_cursor else {**cursor, "page": query.page + 1}
    targets["last"] = {**first, "page": last_page}
    kept = [
        (name, value)
        for name, values in parameters.items()
        if name in PARAMETERS and name not in _PAGE_PARAMETERS
        for value in values
        if value or not empty_is_absent(PARAMETERS[name])
    ]
    links = {
        relation: f'<?{urlencode([*kept, ("limit", limit), *target.items()])}>; rel="{relation}"'
        for relation, target in targets.items()
    }
    for relation in _EXPENDABLE:
        if len(", ".join(links.values())) > MAX_LINK_BYTES:
            links.pop(relation, None)
    return ", ".join(links.values())


def _is_cursor(case_id: str) -> bool:
    """Return whether ``after`` can have this id; an existing table may have others."""
    return canonical_uuid(case_id) is not None
