"""Reads cases from Postgres: SQL in, rows out."""

from typing import Any, NamedTuple

import psycopg2
from psycopg2.extensions import cursor as Cursor

from medmitra_cases.connection import Connection
from medmitra_cases.database_errors import translated
from medmitra_cases.queries import read_sql

SET_USER_ID = read_sql("set_user_id")
SELECT_CASES = read_sql("select_cases")
SELECT_NOTHING = read_sql("select_nothing")
# One string each: one way there and back, and outside a transaction one of its own.
READ_CASES = f"{SET_USER_ID};\n{SELECT_CASES}"
BEGIN_CASES = f"{SET_USER_ID};\nDECLARE cases NO SCROLL CURSOR FOR {SELECT_CASES}"

# One row of select_cases, its columns in its order; times as Postgres writes them, in UTC without an offset.
CaseRow = tuple[str, str, str, int, str, str | None, str | None, str | None, str | None]

# What psycopg2 makes of the types that the columns may have, by their object id in the catalogue pg_type. Of
# 1114, timestamp without time zone, it makes what connection.connect tells it to.
_TYPES = {20: int, 21: int, 23: int, 25: str, 1042: str, 1043: str, 1114: str, 2950: str}


class Cases(NamedTuple):
    """Some cases, and for each of their columns the type of all its values that are not None."""

    rows: list[CaseRow]
    types: list[type]


def fetch_cases(connection: Connection, user_id: str, *, subject: str, at_most: int) -> Cases | None:
    """Fetch all cases of one doctor, unless they are too many to hold at once.

    Args:
        connection: An open connection in autocommit mode.
        user_id: The doctor's UUID.
        subject: The UUID of the doctor on whose behalf this is: of another's cases the database shows none.
        at_most: How many cases are not too many.

    Returns:
        The cases in insertion order, none for a doctor never heard of; None if they are more.

    Raises:
        psycopg2.Error: The database failed or refused the query.
    """
    with connection.cursor() as cursor:
        cursor.execute(READ_CASES, {"user_id": user_id, "subject": subject, "limit": at_most + 1})
        return _cases(cursor, cursor.fetchall()) if cursor.rowcount <= at_most else None


def select_nothing(connection: Connection) -> None:
    """See whether cases could be read, without reading any.

    Args:
        connection: An open connection in autocommit mode.

    Raises:
        psycopg2.Error: They could not.
    """
    with connection.cursor() as cursor:
        cursor.execute(SELECT_NOTHING)


class CaseBatches:
    """All cases of one doctor in insertion order, as they were when it was made, a batch of them at a time.

    An iterator over ``Cases``, through a cursor on the server. Until it is closed, its connection is its own.
    """

    def __init__(self, connection: Connection, user_id: str, *, subject: str, size: int) -> None:
        """Begin to read.

        Args:
            connection: An open connection in autocommit mode.
            user_id: The doctor's UUID.
            subject: As for ``fetch_cases``.
            size: How many cases make a batch.

        Raises:
            psycopg2.Error: The database failed or refused the query.
        """
        self._connection = connection
        self._size = size
        self._closed = False
        try:
            connection.autocommit = False  # a cursor on the server lives as long as its transaction
            with connection.cursor() as cursor:
                cursor.execute(BEGIN_CASES, {"user_id": user_id, "subject": subject, "limit": None})
            self._cursor = connection.cursor("cases")  # the one that this declared
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> "CaseBatches":
        """Return itself."""
        return self

    def __next__(self) -> Cases:
        """Read the next batch. After the last one, or an error, it is closed.

        Returns:
            At least one case.

        Raises:
            DatabaseError: The database failed.
        """
        if self._closed:
            raise StopIteration
        try:
            rows = self._cursor.fetchmany(self._size)
        except psycopg2.Error as error:
            self.close()
            raise translated(error, self._connection) from error
        except BaseException:
            self.close()
            raise
        if not rows:
            self.close()
            raise StopIteration
        return _cases(self._cursor, rows)

    def close(self) -> None:
        """Give the connection back, if that has not been done yet."""
        if self._closed:
            return
        self._closed = True
        try:
            self._connection.rollback()
            self._connection.autocommit = True
        except psycopg2.Error:  # it is lost; the next read finds it closed, and opens another
            self._connection.close()


def _cases(cursor: Cursor, rows: list[Any]) -> Cases:
    return Cases(rows, [_TYPES.get(column.type_code, object) for column in cursor.description or ()])
