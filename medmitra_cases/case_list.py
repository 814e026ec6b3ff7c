"""What a list of cases is made of, on its way from the database to the client."""

from typing import Any, NamedTuple


class Cases(NamedTuple):
    """Some cases, and for each of their columns the type of all its values that are not None.

    Times are as Postgres writes them, in UTC without an offset. After a case's nine columns may be others.
    """

    rows: list[tuple[Any, ...]]
    types: list[type]


class PageFacts(NamedTuple):
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
        facts: What goes with a page; None with a list that is none.
    """

    rows: int | None
    definition: str | None
    facts: PageFacts | None
