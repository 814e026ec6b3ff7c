"""Leads from one page of a list to the others (RFC 8288)."""

from collections.abc import Mapping
from urllib.parse import urlencode

from medmitra_cases.models import MAX_LIMIT, CaseQuery, PageInfo
from medmitra_cases.schemas import OPTIONAL_NAMES

_PAGE_PARAMETERS = frozenset({"limit", "page", "after"})


def link_header(sent: Mapping[str, list[str]], query: CaseQuery, page_info: PageInfo) -> str:
    """Write the links from a page to the first, the previous, the next and the last one.

    In insertion order next names the case to go on after rather than a number, and so does prev on a page
    that was reached like that: cases that come and go meanwhile then neither repeat nor vanish, and no page
    costs more than the first. All else goes by number.

    Args:
        sent: The parameters as the client sent them.
        query: What they mean.
        page_info: What is known of the list.

    Returns:
        The value of the header; prev and next only where there are such pages. Each target is a query alone,
        to be resolved against the URL of the request, of which a proxy may have changed the rest.
    """
    limit = query.limit or MAX_LIMIT  # a page has one
    by_number = query.sort_by is not None
    here = {"after": query.after} if query.after is not None else {}
    # In another order the cases after a place are a list of their own.
    start = here if by_number else {}
    last_page = max(-(-page_info.total // limit), 1)
    links: dict[str, Mapping[str, object]] = {"first": start}
    if query.page > 1:
        links["prev"] = {**here, "page": min(query.page - 1, last_page)}
    elif page_info.has_previous:
        links["prev"] = {"after": page_info.previous_after} if page_info.previous_after is not None else {}
    if page_info.has_next:
        links["next"] = {**start, "page": query.page + 1} if by_number else {"after": page_info.next_after}
    links["last"] = {**start, "page": last_page}
    kept = [
        (name, values[0])
        for name, values in sent.items()
        if name == "user_id" or (name in OPTIONAL_NAMES and name not in _PAGE_PARAMETERS)
    ]
    return ", ".join(
        f'<?{urlencode([*kept, ("limit", limit), *place.items()])}>; rel="{relation}"'
        for relation, place in links.items()
    )
