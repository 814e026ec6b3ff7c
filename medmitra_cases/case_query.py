"""What a request asks for: whose cases, which of them, in which order, and which part of the list."""

from datetime import datetime
from typing import NamedTuple

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
    def is_plain(self) -> bool:
        """Whether it asks for all cases of the doctor, as the published contract has it."""
        return self[1:] == _PLAIN[1:]

    @property
    def is_page(self) -> bool:
        """Whether it asks for a page of a list."""
        return self.limit is not None

    @property
    def skip(self) -> int:
        """How many cases are on the pages before."""
        return 0 if self.limit is None else (self.page - 1) * self.limit


_PLAIN = CaseQuery("")
