"""What the layers hand each other: what a request asks for, and what a list of cases is made of."""

from datetime import datetime
from typing import Any, NamedTuple

SORT_COLUMNS = ("created_at", "updated_at", "patient_name", "patient_age", "status")
MAX_LIMIT = 1_000
# Cases on a page where only its number is given.
DEFAULT_LIMIT = 10


class CaseQuery(NamedTuple):
    """What a request asks for. All but ``user_id`` is None, or its default, where the request says nothing.

    Attributes:
        user_id: The doctor's UUID, in small letters.
        status: Exactly this status.
        gender: Exactly this gender.
        search: This text in the patient's name, the summary or the case's id, in capital or small letters.
        min_age: This age or older, in years.
        max_age: This age or younger, in years.
        start_date: Created then or later.
        end_date: Created then or earlier.
        sort_by: One of ``SORT_COLUMNS``; None is insertion order.
        sort_order: ``asc`` or ``desc``.
        limit: The cases on a page; None is no pages.
        page: The page's number, from 1.
        after: The case_id of the case to go on after.
    """

    user_id: str
    status: str | None = None
    gender: str | None = None
    search: str | None = None
    min_age: int | None = None
    max_age: int | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None
    sort_by: str | None = None
    sort_order: str = "asc"
    limit: int | None = None
    page: int = 1
    after: str | None = None

    @property
    def is_whole_list(self) -> bool:
        """Whether it asks for all cases of the doctor, as the published contract has it."""
        return self[1:] == _WHOLE_LIST[1:]

    @property
    def is_page(self) -> bool:
        """Whether it asks for a page of a list."""
        return self.limit is not None

    @property
    def skip(self) -> int:
        """How many cases are on the pages before."""
        return 0 if self.limit is None else (self.page - 1) * self.limit


_WHOLE_LIST = CaseQuery("")


class Cases(NamedTuple):
    """Some cases, and for each of their columns the type of all its values that are not None.

    Times are as Postgres writes them, in UTC without an offset. After a case's nine columns may be others.
    """

    rows: list[tuple[Any, ...]]
    types: list[type]


class PageInfo(NamedTuple):
    """What a page says of the list that it is of.

    Attributes:
        total: How many cases match. In insertion order also those before the case to go on after.
        has_next: Whether there is a page after it.
        has_previous: Whether, in insertion order, the case to go on after, or one before it, matches.
        previous_after: Then, after which case the page before begins; None if that is the first page.
        shown: How many cases are on it.
        next_after: In insertion order, the last of them, if the page is full: after it the next page begins.
    """

    total: int
    has_next: bool
    has_previous: bool
    previous_after: str | None
    shown: int
    next_after: str | None


class Version(NamedTuple):
    """What changes whenever the answer to a query does.

    Attributes:
        rows: A hash of the versions of exactly the rows in the answer; None if it was not wanted.
        definition: A hash of what ``medmitra.cases`` is; None if that was not wanted.
        page_info: What goes with a page; None with a list that is none.
    """

    rows: int | None
    definition: str | None
    page_info: PageInfo | None
