"""The SQL statements that read cases, and the parameters that a query binds to them."""

from typing import Any, NamedTuple

from psycopg2.extensions import AsIs

from medmitra_cases.database import read_sql
from medmitra_cases.models import CaseQuery


def _read_statement(name: str) -> str:
    """Read a file of ``sql/`` without its comments, except the name: they would be sent with each request."""
    name_line, *lines = read_sql(name).splitlines()
    return "\n".join([name_line, *(line for line in lines if not line.lstrip().startswith("--"))])


SET_USER_ID = _read_statement("set_user_id")
# Each transaction begins with it. The settings end with the transaction.
SET_LOCAL = f"{SET_USER_ID};\n{_read_statement('set_time_format')}"
_CASE_COLUMNS = _read_statement("case_columns")
SELECT_CASES = f"{_CASE_COLUMNS}\n{_read_statement('select_cases')}"
SELECT_VERSION = _read_statement("select_version")
SELECT_DEFINITION = _read_statement("select_definition")
_MATCHING_CASES = _read_statement("matching_cases")
_SELECT_MATCHING_CASES = f"{_CASE_COLUMNS}\n{_read_statement('select_matching_cases')}"
SELECT_MATCHING_CASES = f"{_MATCHING_CASES}\n{_SELECT_MATCHING_CASES}"
SELECT_MATCHING_VERSION = "\n".join(
    [_MATCHING_CASES, ", page AS (", _SELECT_MATCHING_CASES, ")", _read_statement("select_matching_version")]
)
_ROW_VERSION = AsIs(_read_statement("row_version"))
_CASE_BYTES = AsIs(_read_statement("case_bytes"))
# The text instead of one that is too large. A case that contains exactly this text is only read once more.
LEFT_OUT = "(left out: too large)"
_DECLARE_SIZES = "DECLARE sizes NO SCROLL CURSOR FOR SELECT %(case_bytes)s AS case_bytes FROM"


class Statements(NamedTuple):
    """The statements that read one kind of query.

    Attributes:
        read: The statements of a transaction that reads the cases: first those that set, then the SELECT.
        read_version: The same for their version.
        declare: Declares a cursor ``cases`` over the cases, inside a transaction that is open.
        declare_sizes: Declares a cursor ``sizes`` over the bytes of each case in the same order.
        select_version: Reads their version, inside a transaction that is open.
    """

    read: tuple[str, str]
    read_version: tuple[str, str]
    declare: str
    declare_sizes: str
    select_version: str

    @classmethod
    def of(cls, select: str, select_version: str) -> "Statements":
        """Derive the statements from two.

        Args:
            select: Selects the cases.
            select_version: Selects their version.

        Returns:
            The statements.
        """
        return cls(
            read=(SET_LOCAL, select),
            read_version=(SET_LOCAL, select_version),
            declare=f"DECLARE cases NO SCROLL CURSOR FOR {select}",
            declare_sizes=f"{_DECLARE_SIZES} (\n{select}) AS page",
            select_version=select_version,
        )


# The whole list of the published contract has statements of its own: to parse and plan all filters takes a
# large part of the time that fifty cases take.
# Its version reads no times.
WHOLE_LIST = Statements.of(SELECT_CASES, SELECT_VERSION)._replace(read_version=(SET_USER_ID, SELECT_VERSION))
FILTERED = Statements.of(SELECT_MATCHING_CASES, SELECT_MATCHING_VERSION)


class BoundQuery(NamedTuple):
    """A query with the values that its statements need.

    Attributes:
        query: The query.
        subject: The UUID of the doctor who asks. The database shows no other doctor's cases.
        row_versions: Whether the versions of the rows are read, too; None until a definition has decided.
    """

    query: CaseQuery
    subject: str
    row_versions: bool | None

    @property
    def statements(self) -> Statements:
        """The statements that read the query."""
        return WHOLE_LIST if self.query.is_whole_list else FILTERED

    def parameters(
        self, max_rows: int | None = None, max_bytes: int | None = None, *, sizes: bool = False
    ) -> dict[str, Any]:
        """Bind the query's values.

        Args:
            max_rows: The maximum number of rows to read if the query has no pages; None for all.
            max_bytes: The maximum size of a summary in bytes, and 16 times that of another text.
                ``LEFT_OUT`` replaces a larger one. None for no limit.
            sizes: Whether the sizes of cases are read, too.

        Returns:
            One value for each parameter of the statements.
        """
        query = self.query
        parameters = {
            "subject": self.subject,
            "row_version": _ROW_VERSION if self.row_versions else None,
            "case_bytes": _CASE_BYTES if sizes else None,
            "max_summary_bytes": max_bytes,
            "max_other_bytes": None if max_bytes is None else max_bytes // 16,
        }
        if query.is_whole_list:
            return {**parameters, "user_id": query.user_id, "limit": max_rows}
        return {
            **parameters,
            **query._asdict(),
            "status": query.status or (None,),  # psycopg2 writes a tuple as a list of values
            "gender": query.gender or (None,),
            "backwards": query.sort_by is None and query.sort_order == "desc",
            "most": max_rows if query.limit is None else query.limit,
            "skip": query.skip,
        }


def probe_query(*, row_versions: bool | None) -> BoundQuery:
    """Make a query that matches no case, to test whether cases could be read.

    Args:
        row_versions: Whether the versions of the rows are read, too; None if the definition decides.

    Returns:
        The query.
    """
    return BoundQuery(PROBE_QUERY, PROBE_QUERY.user_id, row_versions)


PROBE_QUERY = CaseQuery("00000000-0000-0000-0000-000000000000")
