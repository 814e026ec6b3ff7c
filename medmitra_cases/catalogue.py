"""What Postgres's catalogue says of ``medmitra.cases`` and of the session that asks."""

from typing import NamedTuple

from psycopg2.extensions import connection as Connection

from medmitra_cases.queries import read_sql


class Column(NamedTuple):
    """One row of ``describe_cases``; kind is ``table`` or ``view``."""

    kind: str
    name: str
    type: str
    readable: bool


class Session(NamedTuple):
    """The row of ``describe_session``."""

    server_version: str
    server_version_number: int
    database_name: str
    role_name: str
    statement_timeout: str
    may_write: bool


def describe_cases(connection: Connection) -> list[Column]:
    """Look up ``medmitra.cases``.

    Args:
        connection: Any connection to the database.

    Returns:
        Its columns; none if there is no such table or view.

    Raises:
        psycopg2.Error: The database failed.
    """
    with connection.cursor() as cursor:
        cursor.execute(read_sql("describe_cases"))
        return [Column._make(row) for row in cursor]


def describe_session(connection: Connection) -> Session:
    """Look up who is connected to what.

    Args:
        connection: The connection to describe.

    Returns:
        What it is and may do.

    Raises:
        psycopg2.Error: The database failed.
    """
    with connection.cursor() as cursor:
        cursor.execute(read_sql("describe_session"))
        return Session._make(cursor.fetchall()[0])
