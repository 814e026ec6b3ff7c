"""One connection to Postgres, which another thread can cut off if Postgres does not respond."""

import math
import socket
import time
import weakref
from collections.abc import Callable
from os import dup, getpid
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import UNICODE, parse_dsn
from psycopg2.extensions import connection as PsycopgConnection
from psycopg2.extensions import cursor as PsycopgCursor

from medmitra_cases.models import Definition
from medmitra_cases.telemetry import metrics

T = TypeVar("T")

# Our parameters of libpq; DATABASE_URL overrides them. Without them a dead link blocks a thread for minutes.
CONNECTION_DEFAULTS = {
    "connect_timeout": "2",  # seconds, for each host in turn; 2 is the minimum of libpq
    "keepalives_idle": "5",  # seconds without data before the first probe
    "keepalives_interval": "2",  # seconds between probes
    "keepalives_count": "2",  # unanswered probes until the connection counts as lost
    "tcp_user_timeout": "3000",  # milliseconds until the other side must acknowledge sent data
    "fallback_application_name": "medmitra-cases",
}

# The object id of the type "timestamp without time zone" in the catalogue pg_type.
_TIMESTAMP = 1114


class Connection(PsycopgConnection):
    """A psycopg2 connection with a deadline for each response of the server.

    Attributes:
        answer_timeout_seconds: The maximum time from a statement to its response.
        deadline: The end of that time for the current statement, in seconds of the monotonic clock.
        cut_off: Whether ``cut`` has ended the connection.
        definition: The definition of ``medmitra.cases`` when the DAO first read it; None before that.
    """

    answer_timeout_seconds = 2.0  # until the server's statement_timeout is known
    deadline = math.inf
    cut_off = False
    definition: Definition | None = None

    def __init__(self, dsn: str, **kwargs: Any) -> None:
        """Connect, and count the connection in the metrics."""
        super().__init__(dsn, **kwargs)
        self._pid = getpid()
        # A duplicate: libpq may close its own descriptor at any moment, and the number can then be reused.
        self._socket = socket.socket(fileno=dup(self.fileno()))
        metrics.CONNECTIONS_OPEN.inc()
        self._release = weakref.finalize(self, _release, self._socket)

    def call_with_deadline(self, method: Callable[..., T], *args: Any) -> T:
        """Call a method that waits for the server, and set the deadline meanwhile.

        Args:
            method: A method of psycopg2.
            *args: Its arguments.

        Returns:
            The result of the method.

        Raises:
            psycopg2.Error: The server failed or refused, the connection is lost, or it belongs to the process
                that forked this one.
        """
        if getpid() != self._pid:
            raise psycopg2.InterfaceError("the connection belongs to the parent process")
        started = time.monotonic()
        self.deadline = started + self.answer_timeout_seconds
        metrics.CONNECTIONS_BUSY.inc()
        try:
            return method(*args)
        except psycopg2.Error as error:
            # An error without SQLSTATE does not come from the server. libpq does not always notice that its
            # connection is lost: a server that was killed may leave a warning, which libpq reads first.
            if error.pgcode is None and type(error) in (psycopg2.DatabaseError, psycopg2.OperationalError):
                self.close()
            raise
        finally:
            self.deadline = math.inf
            metrics.CONNECTIONS_BUSY.dec()
            metrics.DATABASE_SECONDS.observe(time.monotonic() - started)

    def rollback(self) -> None:
        """End the transaction."""
        self.call_with_deadline(super().rollback)

    def cut(self) -> None:
        """End the connection from another thread; the thread that waits for the server gets an error."""
        self.cut_off = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the connection has ended already
            return

    def close(self) -> None:
        """End the connection, unless it was inherited from a parent process, whose session it is."""
        if getpid() == self._pid:
            super().close()
            self._release()


def _release(descriptor: socket.socket) -> None:
    descriptor.close()
    metrics.CONNECTIONS_OPEN.dec()


class _Cursor(PsycopgCursor):
    """A cursor that waits for the server only until the deadline of its connection."""

    connection: Connection

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002, the name in psycopg2
        self.connection.call_with_deadline(super().execute, query, vars)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        return self.connection.call_with_deadline(super().fetchmany, size)


def connect(url: str) -> Connection:
    """Open a connection in autocommit mode, which saves a lone SELECT the round trips of BEGIN and COMMIT.

    Args:
        url: A libpq URI or a ``key=value`` string. It overrides ``CONNECTION_DEFAULTS``.

    Returns:
        The connection. Its cursors return a timestamp without time zone as the text that Postgres writes.

    Raises:
        psycopg2.OperationalError: The database cannot be reached, or refuses.
    """
    # The URL cannot change client_encoding, because text must arrive as Unicode with every server encoding.
    connection: Connection = psycopg2.connect(
        **{**CONNECTION_DEFAULTS, **parse_dsn(url), "client_encoding": "UTF8"},
        connection_factory=Connection,
        cursor_factory=_Cursor,
    )
    connection.autocommit = True
    # Timestamps stay text. A third of the fetch time would go into datetime objects, which become text again.
    # It has the effect of register_type() on one connection, without new_type(), which decodes values twice.
    connection.string_types[_TIMESTAMP] = UNICODE
    return connection
