"""What psycopg2's errors mean for a request."""

import psycopg2

from medmitra_cases.database.connection import Connection
from medmitra_cases.errors import DatabaseError, DatabaseUnavailable, DataRefused, QueryTimedOut


def timed_out(error: psycopg2.Error, connection: Connection) -> bool:
    """Tell whether a query was ended for taking too long, or its connection with it.

    Args:
        error: What the query raised.
        connection: The connection it ran on.

    Returns:
        Whether it was.
    """
    return connection.cut_off or isinstance(error, psycopg2.errors.QueryCanceled)


def translated(error: psycopg2.Error, connection: Connection) -> DatabaseError:
    """Say what an error of the database means for a request.

    Args:
        error: What a query raised.
        connection: The connection it ran on.

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
