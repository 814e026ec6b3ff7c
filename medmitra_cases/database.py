"""Connections to Postgres: one per thread, replaced when lost."""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE, UNICODE, parse_dsn
from psycopg2.extensions import connection as Connection

from medmitra_cases.errors import DatabaseError, DatabaseUnavailable, DataRefused, QueryTimedOut

P = ParamSpec("P")
T = TypeVar("T")

# libpq parameters that hold unless DATABASE_URL sets them. Without, a dead link blocks a thread for minutes.
CONNECTION_DEFAULTS = {
    "connect_timeout": "2",  # seconds, for each host in turn; 2 is the least libpq takes
    "keepalives_idle": "5",  # seconds of silence before the first probe
    "keepalives_interval": "2",  # seconds between probes
    "keepalives_count": "2",  # unanswered probes until the connection counts as lost
    "tcp_user_timeout": "3000",  # milliseconds that sent data may stay unacknowledged
    "fallback_application_name": "medmitra-cases",
}

# The object id of "timestamp without time zone" in Postgres's catalogue pg_type.
_TIMESTAMP = 1114

# Pauses between attempts to reach a database that is gone: each twice the one before, up to the longest.
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.4


def connect(url: str) -> Connection:
    """Open a connection in autocommit mode: a lone SELECT then needs no round trip for BEGIN and COMMIT.

    Args:
        url: A libpq URI or ``key=value`` string; what it leaves open, ``CONNECTION_DEFAULTS`` sets.

    Returns:
        The connection. Its cursors deliver a timestamp without time zone as the text that Postgres writes.

    Raises:
        psycopg2.OperationalError: The database cannot be reached, or refuses.
    """
    # Text must arrive as Unicode whatever the server's encoding: the URL has no say in client_encoding.
    connection: Connection = psycopg2.connect(
        **{**CONNECTION_DEFAULTS, **parse_dsn(url), "client_encoding": "UTF8"}
    )
    connection.autocommit = True
    # A third of the time that fetching takes would go into datetime objects that JSON turns into text again.
    # This is register_type() for one connection, but without new_type(), which decodes every value twice.
    connection.string_types[_TIMESTAMP] = UNICODE
    return connection


class _ThreadState(threading.local):
    """What each thread has of its own."""

    connection: Connection | None = None


class Database:
    """Runs reads on connections that belong to the calling thread and are opened on its first read.

    No pool: as many connections as threads, none handed over, nothing to run out of.
    """

    def __init__(self, url: str, *, wait_seconds: float) -> None:
        """Remember how to connect; nothing is opened yet.

        Args:
            url: A libpq URI or ``key=value`` string.
            wait_seconds: How long one read goes on trying to reach a database that is gone. An attempt begun
                before then may end later, by as much as its ``connect_timeout``.
        """
        self._url = url
        self._wait_seconds = wait_seconds
        self._thread = _ThreadState()
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._open_lock = threading.Lock()

    def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a read, again if the connection turns out to be lost. Not for writes: they might run twice.

        Args:
            query: Called with this thread's connection and the arguments below.
            *args: Passed on.
            **kwargs: Passed on.

        Returns:
            What the query returned.

        Raises:
            DataRefused: SQLSTATE class 22; the connection stays.
            QueryTimedOut: The server cancelled the query. Not tried again; the connection stays.
            DatabaseUnavailable: No attempt got an answer within the wait.
            DatabaseError: Any other error of the database.
        """
        give_up_at = time.monotonic() + self._wait_seconds
        attempt = 0
        while True:
            attempt += 1
            try:
                return query(self._connection(), *args, **kwargs)
            except psycopg2.Error as error:
                connection: Connection | None = self._thread.connection
                if connection is not None and not connection.closed:
                    raise translated(error, connection) from error
                self._thread.connection = None
                if connection is not None and attempt == 1:
                    continue  # after a restart every idle connection is dead, and the next one works
                pause = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
                if time.monotonic() + pause > give_up_at:
                    raise DatabaseUnavailable from error
            time.sleep(pause)

    def close(self) -> None:
        """Close the connections of all threads but those in a query. A read after that opens a new one."""
        with self._open_lock:
            for connection in self._open:
                # Closing one in a query would wait until that ends, which may be never.
                if connection.info.transaction_status != TRANSACTION_STATUS_ACTIVE:
                    connection.close()

    def _connection(self) -> Connection:
        if self._thread.connection is None:
            connection = connect(self._url)
            with self._open_lock:
                self._open.add(connection)
            self._thread.connection = connection
        return self._thread.connection


def translated(error: psycopg2.Error, connection: Connection) -> DatabaseError:
    """Say what an error of the database means for a request.

    Args:
        error: What a query raised.
        connection: The connection it ran on.

    Returns:
        The error to raise instead.
    """
    if connection.closed:
        return DatabaseUnavailable()
    if isinstance(error, psycopg2.errors.QueryCanceled):
        return QueryTimedOut()
    if error.pgcode is not None and error.pgcode.startswith("22"):
        return DataRefused(error.pgcode)
    return DatabaseError()
