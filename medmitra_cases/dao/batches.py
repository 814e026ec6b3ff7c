"""Reads a list that is too large to hold in memory, through cursors on the server."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg2

from medmitra_cases.dao.definition import resolve
from medmitra_cases.dao.fetch import types_of, version_of
from medmitra_cases.dao.statements import SET_LOCAL, BoundQuery
from medmitra_cases.dao.transactions import send
from medmitra_cases.database import Connection, translated
from medmitra_cases.models import Cases

T = TypeVar("T")

# The maximum size of the texts of a batch in bytes, unless a single case is larger.
BATCH_BYTES = 1 << 20


class CaseBatches:
    """An iterator over the cases of a query in batches, all of one snapshot.

    It keeps its connection for itself until it is closed. libpq holds the whole result of a FETCH. So if some
    cases are large, a second cursor reads the sizes of the cases ahead.

    Attributes:
        version: The version of the cases.
    """

    def __init__(self, connection: Connection, bound: BoundQuery, size: int) -> None:
        """Open the cursors.

        Args:
            connection: An open connection in autocommit mode.
            bound: The query.
            size: The maximum number of cases in a batch.

        Raises:
            UnknownCursor: The doctor has no case ``after``.
            psycopg2.Error: The database failed or refused the query.
        """
        bound, definition = resolve(connection, bound)
        self._connection = connection
        self._size = size
        self._closed = False
        self._largest = 0  # the size of the largest case in bytes
        self._declare = bound.statements.declare
        self._declare_sizes = bound.statements.declare_sizes
        self._parameters = bound.parameters(sizes=True)
        begin = (
            # All statements see the same rows.
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            SET_LOCAL,
            self._declare,
            bound.statements.select_version,
        )
        try:
            connection.autocommit = False  # a cursor on the server lives as long as its transaction
            with connection.cursor() as cursor:
                send(connection, cursor, begin, self._parameters)
                self.version, self._largest = version_of(cursor, bound.query, definition)
            self._has_large_cases = self._largest * size > BATCH_BYTES
            self._open()
        except BaseException:
            self._end_transaction()
            raise

    def _open(self) -> None:
        """Take over the cursor that DECLARE opened."""
        self._cursor = self._connection.cursor("cases")
        self._sizes: deque[int] = deque()
        if self._has_large_cases:
            with self._connection.cursor() as cursor:
                cursor.execute(self._declare_sizes, self._parameters)
            self._sizes_cursor = self._connection.cursor("sizes")

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
        self._run(self._rewind)

    def _rewind(self) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(f"CLOSE ALL;\n{self._declare}", self._parameters)
        self._open()

    def close(self) -> None:
        """End the transaction, and give the connection back."""
        if not self._closed:
            self._closed = True
            self._end_transaction()
            self._connection.give_back()

    def _end_transaction(self) -> None:
        if self._largest > BATCH_BYTES:  # libpq keeps a buffer of twice that for as long as it is connected
            self._connection.close()
            return
        self._connection.end_transaction()

    def _fetch(self) -> list[tuple[Any, ...]]:
        return self._run(lambda: self._cursor.fetchmany(self._next_count()))

    def _next_count(self) -> int:
        """Return the number of cases of the next batch."""
        if not self._has_large_cases:
            return self._size
        if not self._sizes:
            self._sizes.extend(size for (size,) in self._sizes_cursor.fetchmany(self._size))
        count = total = 0
        while self._sizes and (count == 0 or total + self._sizes[0] <= BATCH_BYTES):
            total += self._sizes.popleft()
            count += 1
        return max(count, 1)

    def _run(self, send: Callable[[], T]) -> T:
        try:
            return send()
        except psycopg2.Error as error:
            translation = translated(error, self._connection)  # before another read can have the connection
            self.close()
            raise translation from error
        except BaseException:
            self.close()
            raise
