"""Reads a list that is too long to hold at once."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg2

from medmitra_cases.dao.fetch import definition_of, types_of, version_of
from medmitra_cases.dao.statements import SET_USER_ID, statements, values
from medmitra_cases.database import Connection, translated
from medmitra_cases.models import CaseQuery, Cases, Version

T = TypeVar("T")


class CaseBatches:
    """All cases that a query asks for, as they were when it was made, a batch of them at a time.

    An iterator over ``Cases``, through a cursor on the server. Until it is closed, its connection is its own.

    Attributes:
        version: The version of the cases.
    """

    def __init__(
        self, connection: Connection, query: CaseQuery, *, subject: str, size: int, row_versions: bool
    ) -> None:
        """Begin to read.

        Args:
            connection: An open connection in autocommit mode.
            query: What is asked for.
            subject: As for ``fetch_cases``.
            size: How many cases make a batch.
            row_versions: As for ``fetch_cases``.

        Raises:
            UnknownCursor: The doctor has no such case to go on after.
            psycopg2.Error: The database failed or refused the query.
        """
        self._connection = connection
        self._size = size
        self._closed = False
        self._declare = statements(query).declare
        self._values = values(query, subject, most=None, row_versions=row_versions)
        definition = definition_of(connection) if row_versions else None
        has_version = row_versions or query.after is not None  # it says, too, whether there is that case
        begin = (
            # The cursor, and what is asked beside it, see the same rows.
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            SET_USER_ID,
            self._declare,
            *([statements(query).select_version] if has_version else []),
        )
        try:
            connection.autocommit = False  # a cursor on the server lives as long as its transaction
            with connection.cursor() as cursor:
                cursor.execute(";\n".join(begin), self._values)
                self.version = Version(None, None, None)
                if has_version:
                    self.version = version_of(cursor, query, definition)
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
        rows = self._fetch()
        if not rows:
            self.close()
            raise StopIteration
        return Cases(rows, types_of(self._cursor))

    def read_and_rewind(self) -> Iterator[Cases]:
        """Read all batches, and go back to before the first.

        Yields:
            At least one case.

        Raises:
            DatabaseError: The database failed.
        """
        while rows := self._fetch():
            yield Cases(rows, types_of(self._cursor))
        with self._connection.cursor() as cursor:
            self._ask(lambda: cursor.execute(f"CLOSE cases;\n{self._declare}", self._values))

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

    def _fetch(self) -> list[tuple[Any, ...]]:
        return self._ask(lambda: self._cursor.fetchmany(self._size))

    def _ask(self, send: Callable[[], T]) -> T:
        try:
            return send()
        except psycopg2.Error as error:
            self.close()
            raise translated(error, self._connection) from error
        except BaseException:
            self.close()
            raise
