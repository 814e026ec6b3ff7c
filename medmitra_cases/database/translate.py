"""Translates the errors of psycopg2 into the errors of this service."""

import psycopg2

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
    if error.pgcode is not None and error.pgcode.startswith("22"):
        return DataRefused(error.pgcode)
    return DatabaseError()
