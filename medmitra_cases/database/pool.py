"""The connections of this process to Postgres, each lent to one read at a time."""

import math
import threading
import time
import weakref

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE

from medmitra_cases.database.connection import Connection
from medmitra_cases.database.connector import Connector
from medmitra_cases.errors import DatabaseUnavailable
from medmitra_cases.telemetry import call_after_fork, call_blocking, metrics

# The minimum time for an attempt to connect, or for a connection that another read has. A request may have
# spent all its time waiting to run.
MIN_WAIT_SECONDS = 0.3

_NO_CONNECTION = "no connection was given back or opened in time"


class _Waiter:
    def __init__(self, deadline: float, opened_after: float) -> None:
        self.deadline = deadline
        self.opened_after = opened_after
        self.result: Connection | Exception | None = None
        self.done = threading.Event()


class Pool:
    """Lends connections: an idle one, a new one, or the next that another read gives back.

    Reads wait in the order in which they came.
    """

    def __init__(self, url: str, *, max_connections: int, max_age_seconds: float) -> None:
        """Keep the parameters, without connecting.

        Args:
            url: A libpq URI or a ``key=value`` string.
            max_connections: The maximum number of connections.
            max_age_seconds: The age at which a connection is replaced at the latest.
        """
        self._url = url
        self._max_connections = max_connections
        self._max_age_seconds = max_age_seconds
        self._start_empty()
        call_after_fork(self._start_again)

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._connector = Connector(self._url, max_age_seconds=self._max_age_seconds, lock=self._lock)
        # Weak, so that a connection that its borrower has lost does not count.
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._idle: list[Connection] = []  # the last one is used next
        self._waiters: list[_Waiter] = []
        self._is_closed = False

    def _start_again(self) -> None:
        """Drop, in a forked child, the connections, the lock and the threads of the parent."""
        for connection in self._connections:
            connection.detach()
        self._start_empty()

    def acquire(self, deadline: float, *, opened_after: float = -math.inf, first: bool = False) -> Connection:
        """Borrow a connection.

        Args:
            deadline: The end of the wait, in seconds of the monotonic clock.
            opened_after: When the read lost its last connection. It gets a newer one, because the older ones
                may be lost, too; but any one if the server refuses new connections.
            first: Whether the read does not wait for those that came before.

        Returns:
            The connection, for ``release``.

        Raises:
            DatabaseUnavailable: There was no connection in time.
            Exception: There is no connection, and an attempt failed, but not because of the database.
        """
        while True:
            with self._lock:
                connection = self._take(opened_after) if first or not self._waiters else None
            if connection is None:
                connection = self._wait(deadline, opened_after, first)
            if not connection.is_closed_by_peer:
                return connection
            metrics.DATABASE_RETRIES.inc()
            connection.close()
            self.release(connection)

    def release(self, connection: Connection) -> None:
        """Give a connection back. It is closed if no later read can use it.

        Args:
            connection: A borrowed connection.
        """
        with self._lock:
            if connection.is_reusable and not self._is_closed:
                self._idle.append(connection)
            else:
                self._drop(connection)
            if self._waiters:
                self._serve_waiters()

    def close(self) -> None:
        """Close the connections on which no statement runs. A later read opens a new one."""
        with self._lock:
            self._is_closed = True
            for connection in list(self._connections):
                # During a statement, close() would wait for its end, which may never come.
                if connection.get_transaction_status() != TRANSACTION_STATUS_ACTIVE:
                    self._drop(connection)

    def _wait(self, deadline: float, opened_after: float, first: bool) -> Connection:
        waiter = _Waiter(deadline, opened_after)
        try:
            with self._lock:
                self._is_closed = False
                began_at = time.monotonic()
                if not self._connections and self._connector.connecting_since is not None:
                    began_at = self._connector.connecting_since
                give_up_at = max(deadline, began_at + MIN_WAIT_SECONDS)
                self._waiters.insert(0 if first else len(self._waiters), waiter)
                if self._connector.next_attempt_at > began_at:
                    self._end_waits(self._connector.error, before=self._connector.next_attempt_at)
                self._serve_waiters()
            call_blocking(waiter.done.wait, max(give_up_at - time.monotonic(), 0))
        finally:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        result = waiter.result or self._connector.error or TimeoutError(_NO_CONNECTION)
        if isinstance(result, Connection):
            return result
        if isinstance(result, (psycopg2.Error, TimeoutError)):
            raise DatabaseUnavailable from result
        raise result

    def _take(self, opened_after: float) -> Connection | None:
        """Remove the idle connection that was used last. Close those that are too old."""
        taken, now = None, time.monotonic()
        for connection in self._idle[::-1]:
            if connection.expires_at <= now:
                self._drop(connection)
            elif taken is None and connection.opened_at > opened_after:
                taken = connection
        if taken is not None:
            self._idle.remove(taken)
        return taken

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        connection.close()
        self._connector.end_pause()

    def _serve_waiters(self) -> None:
        """Lend idle connections, and open more if needed."""
        for waiter in list(self._waiters):
            connection = self._take(waiter.opened_after)
            if connection is not None:
                self._finish(waiter, connection)
        if self._is_connection_needed():
            try:
                self._connector.start(self._is_connection_needed, self._on_result)
            except RuntimeError as error:  # the process may have no more threads at the moment
                self._end_waits(error)

    def _finish(self, waiter: _Waiter, result: Connection | Exception | None) -> None:
        self._waiters.remove(waiter)
        waiter.result = result
        waiter.done.set()

    def _is_connection_needed(self) -> bool:
        return bool(self._waiters) and len(self._connections) < self._max_connections

    def _on_result(self, result: Connection | Exception) -> None:
        is_too_late = self._is_closed or len(self._connections) >= self._max_connections
        if isinstance(result, Connection) and is_too_late:
            result.close()
        elif isinstance(result, Connection):
            result.release_to_pool = weakref.WeakMethod(self.release)
            self._connections.add(result)
            self._idle.append(result)
        else:
            metrics.DATABASE_RETRIES.inc(len(self._waiters))
            is_temporary = isinstance(result, psycopg2.Error)
            self._end_waits(result, before=self._connector.next_attempt_at if is_temporary else math.inf)
            if self._connector.is_refused:
                for waiter in self._waiters:
                    waiter.opened_after = -math.inf
        self._serve_waiters()

    def _end_waits(self, error: Exception | None, *, before: float = math.inf) -> None:
        """End the waits whose time is over before that with an error, unless there is a connection."""
        if not self._connections:
            for waiter in list(self._waiters):
                if waiter.deadline < before:
                    self._finish(waiter, error)
