"""Runs reads on connections to Postgres: one for each thread, replaced when lost."""

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
from medmitra_cases.telemetry import metrics

P = ParamSpec("P")
T = TypeVar("T")

# Pauses between attempts to reach a database that is gone: each twice the one before, up to the longest.
FIRST_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 0.4
# What an attempt gets in any case: a request may have waited for a thread until its time was over.
MIN_CONNECT_SECONDS = 0.3
# An attempt that still waits after so long is left to itself, and another begun.
MAX_CONNECT_SECONDS = 10.0


class _ThreadState(threading.local):
    """What each thread has of its own."""

    connection: Connection | None = None
    opening: Future[Connection] | None = None
    opening_since = 0.0  # in seconds of the monotonic clock


class Database:
    """Runs reads on connections that belong to the calling thread and are opened on its first read.

    No pool: as many connections as threads, none handed over, nothing to run out of.
    """

    def __init__(self, url: str, *, wait_seconds: float) -> None:
        """Remember how to connect; nothing is opened yet.

        Args:
            url: A libpq URI or ``key=value`` string.
            wait_seconds: How long a request goes on trying to reach a database that is gone.
        """
        self._url = url
        self._wait_seconds = wait_seconds
        self._thread = _ThreadState()
        self._watchdog = Watchdog()

    def read(
        self,
        since: float,
        query: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read, again if the connection turns out to be lost. Not for writes: they might run twice.

        Args:
            since: When the request came, in seconds of the monotonic clock; the wait counts from there.
            query: Called with this thread's connection and the arguments below.
            *args: Passed on.
            **kwargs: Passed on.

        Returns:
            What the query returned.

        Raises:
            DataRefused: SQLSTATE class 22; the connection stays.
            QueryTimedOut: The server cancelled the query, and the connection stays; or it should have, and
                the connection is cut off. Not tried again.
            DatabaseUnavailable: No attempt got an answer within the wait.
            DatabaseError: Any other error of the database.
        """
        give_up_at = since + self._wait_seconds
        attempt = 0
        while True:
            attempt += 1
            begun = time.monotonic()
            try:
                return query(self._connection(give_up_at), *args, **kwargs)
            except FutureTimeout as error:
                raise DatabaseUnavailable from error
            except psycopg2.Error as error:
                connection = self._thread.connection
                if connection is not None and (timed_out(error, connection) or not connection.closed):
                    raise translated(error, connection) from error
                now = time.monotonic()
                pause = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), MAX_PAUSE_SECONDS)
                if connection is not None and attempt == 1 and now - begun < FIRST_PAUSE_SECONDS:
                    pause = 0  # after a restart every idle connection is dead, and the next one works
                elif now + pause > give_up_at:
                    raise DatabaseUnavailable from error
            metrics.DATABASE_RETRIES.inc()
            time.sleep(pause)

    def close(self) -> None:
        """Close the connections of all threads but those in a query. A read after that opens a new one."""
        for connection in self._watchdog.connections():
            # Closing one in a query would wait until that ends, which may be never.
            if connection.info.transaction_status != TRANSACTION_STATUS_ACTIVE:
                connection.close()

    def _connection(self, give_up_at: float) -> Connection:
        own = self._thread
        if own.connection is not None and (own.connection.closed or own.connection.cut_off):
            own.connection.close()  # what the server ended still has our descriptor
            own.connection = None
        if own.connection is None:
            if own.opening is None or _has_failed(own.opening, own.opening_since):
                own.opening, own.opening_since = self._open(), time.monotonic()
            # If this runs out of time, the connection is there for a later read of this thread.
            wait_until = max(give_up_at, own.opening_since + MIN_CONNECT_SECONDS)
            own.opening.exception(max(wait_until - time.monotonic(), 0))
            opened, own.opening = own.opening, None
            try:
                own.connection = opened.result()
            finally:
                del opened  # it holds the error, whose traceback would hold it: a cycle until it is collected
        return own.connection

    def _open(self) -> Future[Connection]:
        """Connect in a thread of its own: libpq waits for name servers and mute hosts longer than we may."""
        opening: Future[Connection] = Future()
        threading.Thread(target=self._connect, args=(opening,), name="connect", daemon=True).start()
        return opening

    def _connect(self, opening: Future[Connection]) -> None:
        try:
            opening.set_result(self._watchdog.watch(connect(self._url)))
        except Exception as error:
            opening.set_exception(error)
        finally:
            del opening  # as above


def _has_failed(opening: Future[Connection], since: float) -> bool:
    if opening.done():
        return opening.exception() is not None  # an old failure says nothing of now
    return time.monotonic() - since > MAX_CONNECT_SECONDS
