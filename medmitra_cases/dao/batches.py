"""Reads a list that is too long to hold in memory, through a cursor on the server."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg2

from medmitra_cases.dao.definition import resolve
from medmitra_cases.dao.fetch import types_of, version_of
from medmitra_cases.dao.statements import SET_LOCAL, BoundQuery
from medmitra_cases.database import Connection, translated
from medmitra_cases.models import Cases, Version

T = TypeVar("T")


class CaseBatches:
    """An iterator over the cases of a query in batches, all of one snapshot.

    It keeps its connection for itself until it is closed.

    Attributes:
        version: The version of the cases.
    """

    def __init__(self, connection: Connection, bound: BoundQuery, size: int) -> None:
        """Open the cursor.

        Args:
            connection: An open connection in autocommit mode.
            bound: The query.
            size: The number of cases in a batch.

        Raises:
            UnknownCursor: The doctor has no case ``after``.
            psycopg2.Error: The database failed or refused the query.
        """
        bound, definition = resolve(connection, bound)
        self._connection = connection
        self._size = size
        self._closed = False
        self._declare = bound.statements.declare
        self._parameters = bound.parameters()
        # It also says whether the cursor case exists.
        has_version = bound.row_versions or bound.query.after is not None
        begin = (
            # Both statements see the same rows.
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            SET_LOCAL,
            self._declare,
            *([bound.statements.select_version] if has_version else []),
        )
        try:
            connection.autocommit = False  # a cursor on the server lives as long as its transaction
            with connection.cursor() as cursor:
                cursor.execute(";\n".join(begin), self._parameters)
                self.version = Version(None, None, None)
                if has_version:
                    self.version = version_of(cursor, bound.query, definition)
            self._cursor = connection.cursor("cases")  # the one that DECLARE opened
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> "CaseBatches":
        """Return itself."""
        return self

    def __next__(self) -> Cases:
        """Read the next batch. The iterator closes after the last batch, or after an error.

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
        """Read all batches, then go back to before the first.

        Yields:
            At least one case.

        Raises:
            DatabaseError: The database failed.
        """
        while rows := self._fetch():
            yield Cases(rows, types_of(self._cursor))
        with self._connection.cursor() as cursor:
            self._run(lambda: cursor.execute(f"CLOSE cases;\n{self._declare}", self._parameters))

    def close(self) -> None:
        """End the transaction, so that the connection can serve other reads."""
        if self._closed:
            return
        self._closed = True
        try:
            self._connection.rollback()
            self._connection.autocommit = True
        except psycopg2.Error:  # the connection is lost; the next read opens another
            self._connection.close()

    def _fetch(self) -> list[tuple[Any, ...]]:
        return self._run(lambda: self._cursor.fetchmany(self._size))

    def _run(self, send: Callable[[], T]) -> T:
        try:
            return send()
        except psycopg2.Error as error:
            self.close()
            raise translated(error, self._connection) from error
        except BaseException:
            self.close()
            raise
