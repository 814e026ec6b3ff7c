"""Runs reads on connections to Postgres: each thread has one connection, and replaces it if it is lost."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Concatenate, ParamSpec, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE

from medmitra_cases.database.connection import Connection, connect
from medmitra_cases.database.translate import timed_out, translated
from medmitra_cases.database.watchdog import Watchdog
from medmitra_cases.errors import DatabaseUnavailable
from medmitra_cases.telemetry import call_after_fork, metrics

P = ParamSpec("P")
T = TypeVar("T")

# Pauses between attempts to connect to an unreachable database. Each is twice the previous, up to a maximum.
FIRST_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 0.4
# The minimum time of an attempt, because a request may have spent all its time waiting for a thread.
MIN_CONNECT_SECONDS = 0.3
# The time after which an attempt without result is abandoned, and a new one starts.
MAX_CONNECT_SECONDS = 10.0


class _ThreadState(threading.local):
    connection: Connection | None = None
    pending: Future[Connection] | None = None
    pending_since = 0.0  # in seconds of the monotonic clock


class Database:
    """Runs reads on one connection for each thread, which the thread's first read opens.

    There is no pool: threads share no connection, and none waits for a free one.
    """

    def __init__(self, url: str, *, wait_seconds: float) -> None:
        """Keep the parameters, without connecting.

        Args:
            url: A libpq URI or a ``key=value`` string.
            wait_seconds: The time during which a request tries to connect to an unreachable database.
        """
        self._url = url
        self._wait_seconds = wait_seconds
        self._thread = _ThreadState()
        self._watchdog = Watchdog()
        self._inherited: list[_ThreadState] = []  # never used nor freed: their connections are the parent's
        call_after_fork(self._forget)

    def _forget(self) -> None:
        self._inherited.append(self._thread)
        self._thread = _ThreadState()

    def read(
        self,
        since: float,
        query: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read, and retry it if the connection is lost. Not for writes, which could run twice.

        Args:
            since: When the request arrived, in seconds of the monotonic clock; the wait starts there.
            query: A function that reads with the connection of this thread.
            *args: Further arguments of the function.
            **kwargs: Further arguments of the function.

        Returns:
            The result of the function.

        Raises:
            DataRefused: The database's encoding lacks a character of the query; the connection stays open.
            QueryTimedOut: The server cancelled the query, and the connection stays open; or it did not cancel
                it in time, and the connection is cut off. There is no retry.
            DatabaseUnavailable: No attempt got a response within ``wait_seconds``.
            DatabaseError: Any other error of the database.
        """
        deadline = since + self._wait_seconds
        attempt = 0
        while True:
            attempt += 1
            started = time.monotonic()
            try:
                return query(self._connection(deadline), *args, **kwargs)
            except FutureTimeout as error:
                raise DatabaseUnavailable from error
            except psycopg2.Error as error:
                connection = self._thread.connection
                if connection is not None and (timed_out(error, connection) or not connection.closed):
                    raise translated(error, connection) from error
                now = time.monotonic()
                pause = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), MAX_PAUSE_SECONDS)
                if connection is not None and attempt == 1 and now - started < FIRST_PAUSE_SECONDS:
                    pause = 0  # after a restart every idle connection is dead, but a new one works
                elif now + pause > deadline:
                    raise DatabaseUnavailable from error
            metrics.DATABASE_RETRIES.inc()
            time.sleep(pause)

    def close(self) -> None:
        """Close the connections of all threads that run no query. A later read opens a new connection."""
        for connection in self._watchdog.connections():
            # During a query, close() would wait for its end, which may never come.
            if connection.info.transaction_status != TRANSACTION_STATUS_ACTIVE:
                connection.close()

    def _connection(self, deadline: float) -> Connection:
        state = self._thread
        if state.connection is not None and (state.connection.closed or state.connection.cut_off):
            state.connection.close()  # closes the duplicate descriptor, too
            state.connection = None
        if state.connection is None:
            if state.pending is None or _has_failed(state.pending, state.pending_since):
                state.pending, state.pending_since = self._start_connecting(), time.monotonic()
            # If this times out, a later read of this thread uses the connection.
            wait_until = max(deadline, state.pending_since + MIN_CONNECT_SECONDS)
            state.pending.exception(max(wait_until - time.monotonic(), 0))
            finished, state.pending = state.pending, None
            try:
                state.connection = finished.result()
            finally:
                del finished  # its error's traceback refers to this frame: a cycle for the garbage collector
        return state.connection

    def _start_connecting(self) -> Future[Connection]:
        """Connect in a new thread: libpq waits longer for name servers and silent hosts than requests do."""
        pending: Future[Connection] = Future()
        threading.Thread(target=self._connect, args=(pending,), name="connect", daemon=True).start()
        return pending

    def _connect(self, pending: Future[Connection]) -> None:
        try:
            pending.set_result(self._watchdog.watch(connect(self._url)))
        except Exception as error:
            pending.set_exception(error)
        finally:
            del pending  # its error's traceback refers to this frame


def _has_failed(pending: Future[Connection], since: float) -> bool:
    if pending.done():
        return pending.exception() is not None  # an old failure says nothing about the present
    return time.monotonic() - since > MAX_CONNECT_SECONDS
