"""Reads cases from Postgres: a query in, rows and their version out."""

from functools import reduce
from operator import itemgetter, xor

from psycopg2.extensions import cursor as Cursor

from medmitra_cases.dao.statements import PROBE_QUERY, SELECT_DEFINITION, statements, values
from medmitra_cases.database import Connection
from medmitra_cases.errors import UnknownCursor
from medmitra_cases.models import CaseQuery, Cases, PageInfo, Version

# What psycopg2 makes of the types that the columns may have, by their object id in the catalogue pg_type. Of
# 1114, timestamp without time zone, it makes what connection.connect tells it to.
_TYPES = {20: int, 21: int, 23: int, 25: str, 1042: str, 1043: str, 1114: str, 2950: str}

# What follows the nine columns of a case in a row: its version and, on a page, the first page_info.
_ROW_VERSION = 9
_PAGE_INFO = slice(10, 14)


def fetch_cases(
    connection: Connection, query: CaseQuery, *, subject: str, at_most: int, row_versions: bool
) -> tuple[Cases, Version] | None:
    """Fetch the cases that a query asks for, unless they are too many to hold at once.

    Args:
        connection: An open connection in autocommit mode.
        query: What is asked for.
        subject: The UUID of the doctor on whose behalf this is: of another's cases the database shows none.
        at_most: How many cases are not too many.
        row_versions: Whether the version of the rows is wanted.

    Returns:
        The cases in the order asked for, none for a doctor never heard of, and their version, of the same
        moment; None if they are more than that, which a page never is.

    Raises:
        UnknownCursor: The doctor has no such case to go on after.
        psycopg2.Error: The database failed or refused the query.
    """
    # First, so that what replaces it in between goes with rows that are too new for it, and not too old.
    definition = definition_of(connection) if row_versions else None
    with connection.cursor() as cursor:
        cursor.execute(
            statements(query).read, values(query, subject, most=at_most + 1, row_versions=row_versions)
        )
        if cursor.rowcount > at_most and not query.is_page:
            return None
        rows = cursor.fetchall()
        cases = Cases(rows, types_of(cursor))
    page_info = None
    if rows and query.is_page:
        total, has_next, has_previous, previous_after = rows[0][_PAGE_INFO]
        next_after = rows[-1][0] if query.sort_by is None and len(rows) == query.limit else None
        page_info = PageInfo(total, has_next, has_previous, previous_after, len(rows), next_after)
    elif query.is_page or (query.after is not None and not rows):
        # No row says how many there are elsewhere, or whether the place is known.
        page_info = fetch_version(connection, query, subject=subject, row_versions=row_versions).page_info
        if page_info is not None and page_info.shown:  # there are some meanwhile
            return fetch_cases(connection, query, subject=subject, at_most=at_most, row_versions=row_versions)
    version = reduce(xor, map(itemgetter(_ROW_VERSION), rows), 0) if row_versions else None
    return cases, Version(version, definition, page_info)


def fetch_version(connection: Connection, query: CaseQuery, *, subject: str, row_versions: bool) -> Version:
    """Fetch the version of the cases that a query asks for, and none of them.

    Args:
        connection: An open connection in autocommit mode.
        query: What is asked for.
        subject: As for ``fetch_cases``.
        row_versions: As for ``fetch_cases``.

    Returns:
        The version, which ``fetch_cases`` has as well.

    Raises:
        UnknownCursor: The doctor has no such case to go on after.
        psycopg2.Error: The database failed or refused the query.
    """
    definition = definition_of(connection) if row_versions else None
    with connection.cursor() as cursor:
        cursor.execute(
            statements(query).read_version, values(query, subject, most=None, row_versions=row_versions)
        )
        return version_of(cursor, query, definition)


def check_readable(connection: Connection, *, row_versions: bool) -> None:
    """See whether cases could be read as ``fetch_cases`` reads them, without reading any.

    Args:
        connection: An open connection in autocommit mode.
        row_versions: As for ``fetch_cases``.

    Raises:
        psycopg2.Error: They could not.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            statements(PROBE_QUERY).read,
            values(PROBE_QUERY, PROBE_QUERY.user_id, most=0, row_versions=row_versions),
        )


def types_of(cursor: Cursor) -> list[type]:
    """Tell what psycopg2 makes of a result's columns.

    Args:
        cursor: A cursor with a result.

    Returns:
        For each column the type of all its values that are not None; ``object`` for any.
    """
    return [_TYPES.get(column.type_code, object) for column in cursor.description or ()]


def version_of(cursor: Cursor, query: CaseQuery, definition: str | None) -> Version:
    """Take the row of ``select_version`` or ``select_matching_version`` from a cursor.

    Args:
        cursor: The cursor, with that row as its result.
        query: What was asked for.
        definition: As in ``Version``, looked up before; None if no version is wanted.

    Returns:
        The version.

    Raises:
        UnknownCursor: The doctor has no such case to go on after.
        psycopg2.Error: The database failed.
    """
    ((version, *more),) = cursor.fetchall()
    page_info = None
    if not query.is_whole_list:
        *known, cursor_found = more
        if query.after is not None and not cursor_found:
            raise UnknownCursor
        page_info = PageInfo(*known) if query.is_page else None
    return Version(
        None if definition is None else version or 0, definition, page_info
    )  # of no rows it is NULL


def definition_of(connection: Connection) -> str:
    """Hash what ``medmitra.cases`` is, as the connection found it first.

    Args:
        connection: An open connection.

    Returns:
        The hash.

    Raises:
        psycopg2.Error: The database failed.
    """
    if connection.definition is None:
        with connection.cursor() as cursor:
            cursor.execute(SELECT_DEFINITION)
            ((connection.definition,),) = cursor.fetchall()
    return connection.definition
