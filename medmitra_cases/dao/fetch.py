"""Reads on one connection: a bound query in, rows and their version out."""

from functools import reduce
from operator import itemgetter, xor

from psycopg2.extensions import cursor as Cursor

from medmitra_cases.dao.definition import resolve
from medmitra_cases.dao.statements import BoundQuery, probe_query
from medmitra_cases.database import Connection
from medmitra_cases.errors import UnknownCursor
from medmitra_cases.models import CaseQuery, Cases, PageInfo, Version

# The Python type that psycopg2 makes of each column type, by its object id in the catalogue pg_type. For
# 1114, timestamp without time zone, database.connect makes it text.
_TYPES = {20: int, 21: int, 23: int, 25: str, 1042: str, 1043: str, 1114: str, 2950: str}

# After the nine columns of a case, a row has its version and, on a page, the first fields of PageInfo.
_ROW_VERSION = 9
_PAGE_INFO = slice(10, 14)


def fetch_cases(connection: Connection, bound: BoundQuery, max_rows: int) -> tuple[Cases, Version] | None:
    """Fetch the cases of a query, unless they are too many.

    Args:
        connection: An open connection in autocommit mode.
        bound: The query.
        max_rows: The maximum number of cases.

    Returns:
        The cases in the requested order, and their version of the same moment; no cases for an unknown
        doctor. None if there are more than ``max_rows``, which a page never has.

    Raises:
        UnknownCursor: The doctor has no case ``after``.
        psycopg2.Error: The database failed or refused the query.
    """
    query = bound.query
    # First, so that a definition that changes meanwhile goes with rows that are too new, never too old.
    bound, definition = resolve(connection, bound)
    with connection.cursor() as cursor:
        cursor.execute(bound.statements.read, bound.parameters(max_rows + 1))
        if cursor.rowcount > max_rows and not query.is_page:
            return None
        rows = cursor.fetchall()
        cases = Cases(rows, types_of(cursor))
    page_info = None
    if rows and query.is_page:
        total, has_next, has_previous, previous_after = rows[0][_PAGE_INFO]
        next_after = rows[-1][0] if query.sort_by is None and len(rows) == query.limit else None
        page_info = PageInfo(total, has_next, has_previous, previous_after, len(rows), next_after)
    elif query.is_page or (query.after is not None and not rows):
        # Without a row nothing tells the total, or whether the cursor case exists.
        page_info = fetch_version(connection, bound).page_info
        if page_info is not None and page_info.shown:  # cases arrived between the two statements
            return fetch_cases(connection, bound, max_rows)
    version = reduce(xor, map(itemgetter(_ROW_VERSION), rows), 0) if bound.row_versions else None
    return cases, Version(version, definition, page_info)


def fetch_version(connection: Connection, bound: BoundQuery) -> Version:
    """Fetch the version of a query's cases, without the cases.

    Args:
        connection: An open connection in autocommit mode.
        bound: The query.

    Returns:
        The version, equal to that of ``fetch_cases``.

    Raises:
        UnknownCursor: The doctor has no case ``after``.
        psycopg2.Error: The database failed or refused the query.
    """
    bound, definition = resolve(connection, bound)
    with connection.cursor() as cursor:
        cursor.execute(bound.statements.read_version, bound.parameters())
        return version_of(cursor, bound.query, definition)


def fetch_row_version(connection: Connection, bound: BoundQuery) -> Version | None:
    """Fetch the version of a query's cases, if it is made of the versions of the rows.

    Args:
        connection: An open connection in autocommit mode.
        bound: The query.

    Returns:
        The version; None if only the cases themselves can tell it.

    Raises:
        UnknownCursor: The doctor has no case ``after``.
        psycopg2.Error: The database failed or refused the query.
    """
    bound, _ = resolve(connection, bound)
    return fetch_version(connection, bound) if bound.row_versions else None


def check_readable(connection: Connection, *, row_versions: bool | None) -> None:
    """Test whether cases could be read as ``fetch_cases`` reads them, without reading one.

    Args:
        connection: An open connection in autocommit mode.
        row_versions: Whether the versions of the rows must be readable, too; None if the definition decides.

    Raises:
        psycopg2.Error: They cannot be read.
    """
    probe, _ = resolve(connection, probe_query(row_versions=row_versions))
    with connection.cursor() as cursor:
        cursor.execute(probe.statements.read, probe.parameters(0))


def types_of(cursor: Cursor) -> list[type]:
    """List the types of a result's columns.

    Args:
        cursor: A cursor with a result.

    Returns:
        For each column the type of all its values that are not None; ``object`` if it is unknown.
    """
    return [_TYPES.get(column.type_code, object) for column in cursor.description or ()]


def version_of(cursor: Cursor, query: CaseQuery, definition: str | None) -> Version:
    """Take the row of ``select_version`` or ``select_matching_version`` from a cursor.

    Args:
        cursor: The cursor, with that row as its result.
        query: The query.
        definition: The hash that ``resolve`` returned before; None if no version is wanted.

    Returns:
        The version.

    Raises:
        UnknownCursor: The doctor has no case ``after``.
        psycopg2.Error: The database failed.
    """
    ((version, *more),) = cursor.fetchall()
    page_info = None
    if not query.is_whole_list:
        *known, cursor_found = more
        if query.after is not None and not cursor_found:
            raise UnknownCursor
        page_info = PageInfo(*known) if query.is_page else None
    # Over no rows the version is NULL.
    return Version(None if definition is None else version or 0, definition, page_info)
