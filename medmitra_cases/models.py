"""The values that the layers pass to each other: a request's query, and a list of cases."""

from datetime import datetime
from typing import Any, NamedTuple

SORT_COLUMNS = ("created_at", "updated_at", "patient_name", "patient_age", "status")
MAX_LIMIT = 1_000
# Cases on a page if the request gives only its number.
DEFAULT_LIMIT = 10


class CaseQuery(NamedTuple):
    """The query of a request. ``CaseQuerySchema`` says what each parameter means.

    Without ``sort_by`` the order is insertion order. Without ``limit`` there are no pages. ``after`` is the
    case_id of the cursor case: the list begins after it. A case has one of ``status`` and of ``gender``.
    """

    user_id: str
    status: tuple[str, ...] | None = None
    gender: tuple[str, ...] | None = None
    search: str | None = None
    min_age: int | None = None
    max_age: int | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None
    updated_since: datetime | None = None
    sort_by: str | None = None
    sort_order: str = "asc"
    limit: int | None = None
    page: int = 1
    after: str | None = None

    @property
    def is_whole_list(self) -> bool:
        """Whether the query is the one that the published contract has: all cases of the doctor."""
        return self[1:] == _WHOLE_LIST[1:]

    @property
    def is_page(self) -> bool:
        """Whether the query asks for one page of a list."""
        return self.limit is not None

    @property
    def skip(self) -> int:
        """The number of cases on the pages before this one."""
        return 0 if self.limit is None else (self.page - 1) * self.limit


_WHOLE_LIST = CaseQuery("")


class Cases(NamedTuple):
    """Rows of cases, and the type of each column's values, None apart.

    Times are text as Postgres writes it, in UTC without an offset. A row may have more columns after the nine
    of a case.
    """

    rows: list[tuple[Any, ...]]
    types: list[type]


class PageInfo(NamedTuple):
    """The facts about a list that a page of it reports.

    Attributes:
        total: The number of cases that match. In insertion order this includes those before the cursor.
        has_next: Whether a page follows.
        has_previous: Whether, in insertion order, the cursor case or one before it matches.
        previous_after: The cursor of the previous page; None if that is the first page.
        shown: The number of cases on this page.
        next_after: The cursor of the next page: in insertion order, the last case of a full page.
    """

    total: int
    has_next: bool
    has_previous: bool
    previous_after: str | None
    shown: int
    next_after: str | None


class Definition(NamedTuple):
    """The definition of ``medmitra.cases``.

    Attributes:
        hash: A hash of what decides the content of a response, apart from the rows.
        without_row_versions: Why a row may change without its version; None if that cannot happen.
        is_distributed: Whether Citus reads the rows from other servers.
    """

    hash: str
    without_row_versions: str | None
    is_distributed: bool


class Version(NamedTuple):
    """A value that changes whenever the response to a query changes.

    Attributes:
        rows: A hash of the versions of exactly the rows in the response; None if it was not requested.
        definition: A hash of the definition of ``medmitra.cases``; None if it was not requested.
        page_info: The page's facts; None if the query asks for no page.
    """

    rows: int | None
    definition: str | None
    page_info: PageInfo | None
