"""One connection to Postgres, which another thread can cut off when a statement gets no answer."""

import math
import socket
import time
import weakref
from collections.abc import Callable
from os import dup
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import UNICODE, parse_dsn
from psycopg2.extensions import connection as PsycopgConnection
from psycopg2.extensions import cursor as PsycopgCursor

from medmitra_cases.telemetry import metrics

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


class Connection(PsycopgConnection):
    """A psycopg2 connection that knows until when its server has to answer.

    Attributes:
        answer_timeout_seconds: How long a statement may go without an answer.
        answer_by: When the statement under way must be answered, in seconds of the monotonic clock.
        cut_off: Whether one was not, and the connection therefore ended.
        definition: What the DAO found ``medmitra.cases`` to be when it first looked; None before that.
    """

    answer_timeout_seconds = 2.0  # until it is known how long the server allows
    answer_by = math.inf
    cut_off = False
    definition: str | None = None

    def __init__(self, dsn: str, **kwargs: Any) -> None:
        """Connect.

        Args:
            dsn: A libpq connection string.
            **kwargs: As psycopg2 has them.

        Raises:
            psycopg2.OperationalError: The database cannot be reached, or refuses.
        """
        super().__init__(dsn, **kwargs)
        # A descriptor of our own: libpq may close its at any moment, and the number then be somebody else's.
        self._socket = socket.socket(fileno=dup(self.fileno()))
        metrics.CONNECTIONS_OPEN.inc()
        self._release = weakref.finalize(self, _release, self._socket)

    def ask(self, send: Callable[..., T], *args: Any) -> T:
        """Send the server something, and wait for its answer no longer than is reasonable.

        Args:
            send: What sends it and waits.
            *args: Its arguments.

        Returns:
            What that returns.

        Raises:
            psycopg2.Error: The server failed or refused, or the connection is lost.
        """
        begun = time.monotonic()
        self.answer_by = begun + self.answer_timeout_seconds
        metrics.CONNECTIONS_BUSY.inc()
        try:
            return send(*args)
        except psycopg2.Error as error:
            # Without a SQLSTATE it is no server's word, and libpq does not always see that its connection is
            # lost: a server that was killed may leave a warning behind, which it reads first.
            if error.pgcode is None and type(error) in (psycopg2.DatabaseError, psycopg2.OperationalError):
                self.close()
            raise
        finally:
            self.answer_by = math.inf
            metrics.CONNECTIONS_BUSY.dec()
            metrics.DATABASE_SECONDS.observe(time.monotonic() - begun)

    def rollback(self) -> None:
        """End the transaction."""
        self.ask(super().rollback)

    def cut(self) -> None:
        """End the connection from another thread; the one that waits for an answer gets an error."""
        self.cut_off = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended meanwhile
            return

    def close(self) -> None:
        """End the connection."""
        super().close()
        self._release()


def _release(descriptor: socket.socket) -> None:
    descriptor.close()
    metrics.CONNECTIONS_OPEN.dec()


class _Cursor(PsycopgCursor):
    """A cursor whose connection does not wait for ever."""

    connection: Connection

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002, psycopg2 calls it so
        self.connection.ask(super().execute, query, vars)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        return self.connection.ask(super().fetchmany, size)


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
        **{**CONNECTION_DEFAULTS, **parse_dsn(url), "client_encoding": "UTF8"},
        connection_factory=Connection,
        cursor_factory=_Cursor,
    )
    connection.autocommit = True
    # A third of the time that fetching takes would go into datetime objects that JSON turns into text again.
    # This is register_type() for one connection, but without new_type(), which decodes every value twice.
    connection.string_types[_TIMESTAMP] = UNICODE
    return connection
