"""The statements that read cases, and the values that a query binds to them."""

from typing import Any, NamedTuple

from psycopg2.extensions import AsIs

from medmitra_cases.database import read_sql
from medmitra_cases.models import CaseQuery

SET_USER_ID = read_sql("set_user_id")
SELECT_CASES = read_sql("select_cases")
SELECT_VERSION = read_sql("select_version")
SELECT_DEFINITION = read_sql("select_definition")
_MATCHING_CASES = read_sql("matching_cases")
_SELECT_MATCHING_CASES = read_sql("select_matching_cases")
SELECT_MATCHING_CASES = f"{_MATCHING_CASES}{_SELECT_MATCHING_CASES}"
SELECT_MATCHING_VERSION = (
    f"{_MATCHING_CASES},\npage AS (\n{_SELECT_MATCHING_CASES})\n{read_sql('select_matching_version')}"
)

# Asks for no case, where it matters only whether cases could be read.
PROBE_QUERY = CaseQuery("00000000-0000-0000-0000-000000000000")

_ROW_VERSION = AsIs(read_sql("row_version"))


class Statements(NamedTuple):
    """What reads the answer to a query. One string each: one way there and back, in a transaction of its own.

    Attributes:
        read: The cases.
        read_version: Their version.
        declare: A cursor ``cases`` over the cases; not in a transaction of its own.
        select_version: Their version, likewise.
    """

    read: str
    read_version: str
    declare: str
    select_version: str

    @classmethod
    def of(cls, select: str, select_version: str) -> "Statements":
        """Make them of the two that matter.

        Args:
            select: Selects the cases.
            select_version: Selects their version.

        Returns:
            The statements.
        """
        return cls(
            read=f"{SET_USER_ID};\n{select}",
            read_version=f"{SET_USER_ID};\n{select_version}",
            declare=f"DECLARE cases NO SCROLL CURSOR FOR {select}",
            select_version=select_version,
        )


# The whole list, as the published contract has it, has statements of its own: to parse and plan all the
# filters costs much of what fifty cases take.
WHOLE_LIST = Statements.of(SELECT_CASES, SELECT_VERSION)
FILTERED = Statements.of(SELECT_MATCHING_CASES, SELECT_MATCHING_VERSION)


def statements(query: CaseQuery) -> Statements:
    """Choose the statements for a query.

    Args:
        query: What is asked for.

    Returns:
        Those that read it.
    """
    return WHOLE_LIST if query.is_whole_list else FILTERED


def values(query: CaseQuery, subject: str, *, most: int | None, row_versions: bool) -> dict[str, Any]:
    """Bind a query to its statements.

    Args:
        query: What is asked for.
        subject: The UUID of the doctor on whose behalf this is.
        most: How many cases to read at most; None for all.
        row_versions: Whether the rows' versions are wanted.

    Returns:
        One value per parameter.
    """
    row_version = _ROW_VERSION if row_versions else None
    if query.is_whole_list:
        return {
            "user_id": query.user_id,
            "subject": subject,
            "limit": most,
            "row_version": row_version,
        }
    return {
        **query._asdict(),
        "subject": subject,
        "row_version": row_version,
        "backwards": query.sort_by is None and query.sort_order == "desc",
        "most": most if query.limit is None else query.limit,
        "skip": query.skip,
    }
