"""Translates the errors of psycopg2 into the errors of this service."""

import psycopg2
from psycopg2.extensions import encodings

from medmitra_cases.database.connection import Connection
from medmitra_cases.errors import DatabaseError, DatabaseUnavailable, DataRefused, QueryTimedOut


def timed_out(error: psycopg2.Error, connection: Connection) -> bool:
    """Return whether a query took too long.

    Args:
        error: The error that the query raised.
        connection: The connection of the query.

    Returns:
        Whether the server cancelled the query, or the connection was cut off.
    """
    return connection.cut_off or isinstance(error, psycopg2.errors.QueryCanceled)


def has_conflict(error: psycopg2.Error) -> bool:
    """Return whether a read may succeed if it is repeated.

    Args:
        error: The error that the query raised.

    Returns:
        Whether its SQLSTATE is of class 40: Postgres rolled the transaction back because of another one.
    """
    return error.pgcode is not None and error.pgcode.startswith("40")


def translated(error: psycopg2.Error, connection: Connection) -> DatabaseError:
    """Translate an error of psycopg2.

    Args:
        error: The error that a query raised.
        connection: The connection of the query.

    Returns:
        The error to raise instead.
    """
    if timed_out(error, connection):
        return QueryTimedOut()
    if connection.closed:
        return DatabaseUnavailable()
    if _has_unknown_character(error, connection):
        return DataRefused(error.pgcode or "")
    return DatabaseError()


def _has_unknown_character(error: psycopg2.Error, connection: Connection) -> bool:
    """Return whether the statement, and so the request, has a character that the database's encoding lacks.

    The parameters are validated, so they cause no other data exception (SQLSTATE class 22). Stored data can
    cause all of them, and this one, too.
    """
    if not isinstance(error, psycopg2.errors.UntranslatableCharacter) or error.cursor is None:
        return False
    encoding = connection.info.parameter_status("server_encoding") or "UTF8"
    try:
        (error.cursor.query or b"").decode().encode(encodings.get(encoding, "utf_8"))
    except UnicodeEncodeError:
        return True
    return False
