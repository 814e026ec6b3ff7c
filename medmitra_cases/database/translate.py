"""Translates the errors of psycopg2 into the errors of this service."""

import psycopg2
from psycopg2.extensions import encodings

from medmitra_cases.database.connection import Connection
from medmitra_cases.errors import DatabaseError, DatabaseUnavailable, DataRefused, QueryTimedOut

# SQLSTATEs: query_canceled, lock_not_available (lock_timeout), idle_in_transaction_session_timeout and
# transaction_timeout. Those that end the session come from a pooler: libpq only sees the end of the session.
_TIMEOUTS = frozenset({"57014", "55P03", "25P03", "25P04"})
# The first characters of SQLSTATEs: connection exceptions, foreign servers that cannot be read, sessions and
# servers that end, and too many connections.
_UNAVAILABLE = ("08", "HV", "57P", "53300")


def timed_out(error: psycopg2.Error, connection: Connection) -> bool:
    """Return whether a query took too long.

    Args:
        error: The error that the query raised.
        connection: The connection of the query.

    Returns:
        Whether the server cancelled the query, or the connection was cut off.
    """
    return connection.cut_off or error.pgcode in _TIMEOUTS


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
    sqlstate = error.pgcode or ""
    if timed_out(error, connection):
        return QueryTimedOut()
    if connection.closed or sqlstate.startswith(_UNAVAILABLE):
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
