"""Reads facts about ``medmitra.cases`` and about the session from the catalogue of Postgres."""

from typing import NamedTuple

from psycopg2.extensions import connection as Connection

from medmitra_cases.database import read_sql


class Column(NamedTuple):
    """One row of ``describe_cases``; ``kind`` is ``table`` or ``view``."""

    kind: str
    name: str
    type: str
    readable: bool


class Source(NamedTuple):
    """The row of ``describe_source``."""

    closed_tables: str | None
    guarded_tables: str | None
    may_write: bool
    invalid_index: str | None
    any_time: bool
    unordered_sequence: str | None


class Session(NamedTuple):
    """The row of ``describe_session``."""

    server_version: str
    server_version_number: int
    database_name: str
    role_name: str
    statement_timeout: str
    statement_seconds: float | None
    random_page_cost: float
    folds_unicode: bool
    sets_reach_shards: bool | None


class Connections(NamedTuple):
    """The row of ``describe_connections``: numbers of connections; None is no limit."""

    role_limit: int | None
    database_limit: int | None
    free: int


def describe_cases(connection: Connection) -> list[Column]:
    """Look up ``medmitra.cases``.

    Args:
        connection: Any connection to the database.

    Returns:
        The columns; an empty list if there is no such table or view.

    Raises:
        psycopg2.Error: The database failed.
    """
    return [Column._make(row) for row in _rows(connection, "describe_cases")]


def describe_source(connection: Connection) -> Source:
    """Look up the table ``medmitra.cases``, or the tables that the view reads.

    Args:
        connection: Any connection to the database.

    Returns:
        The facts about the tables that matter to the service.

    Raises:
        psycopg2.Error: The database failed.
    """
    return Source._make(_rows(connection, "describe_source")[0])


def describe_session(connection: Connection) -> Session:
    """Look up the server, the database, the role and its settings.

    Args:
        connection: The connection to describe.

    Returns:
        The facts about the session.

    Raises:
        psycopg2.Error: The database failed.
    """
    return Session._make(_rows(connection, "describe_session")[0])


def describe_connections(connection: Connection) -> Connections:
    """Look up how many connections the role of the session may have.

    Args:
        connection: A connection with the role of the service.

    Returns:
        The limits.

    Raises:
        psycopg2.Error: The database failed.
    """
    return Connections._make(_rows(connection, "describe_connections")[0])


def _rows(connection: Connection, name: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(read_sql(name))
        return cursor.fetchall()
