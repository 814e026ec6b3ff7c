"""Reads on one connection that return no cases, and what all reads take from a result."""

from psycopg2.extensions import cursor as Cursor

from medmitra_cases.dao.definition import resolve
from medmitra_cases.dao.statements import BoundQuery, probe_query
from medmitra_cases.dao.transactions import transaction
from medmitra_cases.database import Connection
from medmitra_cases.errors import UnknownCursor
from medmitra_cases.models import CaseQuery, PageInfo, Version

# The Python type that psycopg2 makes of each column type, by its object id in the catalogue pg_type. For
# 1114, timestamp without time zone, database.connect makes it text.
_TYPES = {20: int, 21: int, 23: int, 25: str, 1042: str, 1043: str, 1114: str, 2950: str}


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
    return _read_version(connection, *resolve(connection, bound))


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
    bound, definition = resolve(connection, bound)
    return _read_version(connection, bound, definition) if bound.row_versions else None


def _read_version(connection: Connection, bound: BoundQuery, definition: str | None) -> Version:
    with transaction(connection, bound.statements.read_version, bound.parameters()) as cursor:
        return version_of(cursor, bound.query, definition)[0]


def check_readable(connection: Connection, *, row_versions: bool | None) -> None:
    """Test whether cases could be read as ``fetch_cases`` reads them, without reading one.

    Args:
        connection: An open connection in autocommit mode.
        row_versions: Whether the versions of the rows must be readable, too; None if the definition decides.

    Raises:
        psycopg2.Error: They cannot be read.
    """
    probe, _ = resolve(connection, probe_query(row_versions=row_versions))
    with transaction(connection, probe.statements.read, probe.parameters(0)):
        pass


def types_of(cursor: Cursor) -> list[type]:
    """List the types of a result's columns.

    Args:
        cursor: A cursor with a result.

    Returns:
        For each column the type of all its values that are not None; ``object`` if it is unknown.
    """
    return [_TYPES.get(column.type_code, object) for column in cursor.description or ()]


def version_of(cursor: Cursor, query: CaseQuery, definition: str | None) -> tuple[Version, int]:
    """Take the row of ``select_version`` or ``select_matching_version`` from a cursor.

    Args:
        cursor: The cursor, with that row as its result.
        query: The query.
        definition: The hash that ``resolve`` returned before; None if no version is wanted.

    Returns:
        The version, and the size of the largest case in bytes, 0 if it was not requested.

    Raises:
        UnknownCursor: The doctor has no case ``after``.
        psycopg2.Error: The database failed.
    """
    ((version, largest, *more),) = cursor.fetchall()
    page_info = None
    if not query.is_whole_list:
        *known, cursor_found = more
        if query.after is not None and not cursor_found:
            raise UnknownCursor
        page_info = PageInfo(*known) if query.is_page else None
    # Over no rows the version is NULL.
    return Version(None if definition is None else version or 0, definition, page_info), largest or 0
