"""One connection to Postgres, which another thread can cut off if Postgres does not respond."""

import math
import os
import select
import socket
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS, UNICODE
from psycopg2.extensions import connection as PsycopgConnection
from psycopg2.extensions import cursor as PsycopgCursor

from medmitra_cases.database.parameters import connection_parameters
from medmitra_cases.database.wait_callback import call_in_scheduler, log_in
from medmitra_cases.models import Definition
from medmitra_cases.telemetry import metrics

T = TypeVar("T")

# The object id of the type "timestamp without time zone" in the catalogue pg_type.
_TIMESTAMP = 1114

# The open connections of this process, by the number of their second descriptor. Not a counter with a lock: a
# forked child changes it before anything else runs.
_open_descriptors: set[int] = set()
metrics.CONNECTIONS_OPEN.set_function(lambda: len(_open_descriptors))


class Connection(PsycopgConnection):
    """A psycopg2 connection with a deadline for each response of the server.

    Attributes:
        answer_timeout_seconds: The maximum time from a statement to its response.
        deadline: The end of that time for the current statement, in seconds of the monotonic clock.
        cut_off: Whether ``cut`` has ended the connection.
        opened_at: When the connection was begun, in seconds of the monotonic clock.
        expires_at: When it is to be replaced.
        statement_limit: A statement that limits the time of the statements after it; empty if the session has
            a low enough limit.
        release_to_pool: A method of the pool that takes the connection back; None if it belongs to no pool.
        definition: The definition of ``medmitra.cases`` when the DAO first read it; None before that.
    """

    answer_timeout_seconds = math.inf  # until the Watchdog sets it
    deadline = math.inf
    cut_off = False
    opened_at = 0.0
    expires_at = math.inf
    statement_limit = ""
    release_to_pool: "weakref.WeakMethod[Callable[[Connection], None]] | None" = None
    definition: Definition | None = None

    def __init__(self, dsn: str, **kwargs: Any) -> None:
        """Connect."""
        super().__init__(dsn, **kwargs)
        self._pid = os.getpid()
        # A duplicate: libpq may close its own descriptor at any moment, and the number can then be reused.
        self._socket = socket.socket(fileno=os.dup(self.fileno()))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLRDHUP)
        _open_descriptors.add(self._socket.fileno())
        self._release = weakref.finalize(self, _release, self._socket)

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open in which no statement runs."""
        return self.get_transaction_status() == TRANSACTION_STATUS_INTRANS

    @property
    def is_reusable(self) -> bool:
        """Whether nothing of the last read is left: no transaction, and no response to come."""
        return (
            not self.closed
            and not self.cut_off
            and self.get_transaction_status() == TRANSACTION_STATUS_IDLE
            and self.autocommit
        )

    @property
    def is_closed_by_peer(self) -> bool:
        """Whether the connection has ended, as far as this machine knows."""
        return self.closed != 0 or bool(self._poll.poll(0))

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
        if os.getpid() != self._pid:
            raise psycopg2.InterfaceError("the connection belongs to the parent process")
        started = time.monotonic()
        self.deadline = started + self.answer_timeout_seconds
        metrics.CONNECTIONS_BUSY.inc()
        try:
            return call_in_scheduler(method, *args)
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

    def end_transaction(self) -> None:
        """End the transaction, and return to autocommit mode. If that fails, the connection is closed."""
        try:
            self.call_with_deadline(self.rollback)
            self.autocommit = True
        except psycopg2.Error:  # the connection is lost; the next read opens another
            self.close()

    def give_back(self) -> None:
        """Return the connection to the pool. Called once, by a read that left a transaction open."""
        release = self.release_to_pool and self.release_to_pool()
        if release:
            release(self)

    def cut(self) -> None:
        """End the connection from another thread; the read that waits for the server gets an error."""
        self.cut_off = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the connection has ended already
            return

    def close(self) -> None:
        """End the connection, unless it was inherited from a parent process, whose session it is."""
        if os.getpid() == self._pid:
            super().close()
            self._release()

    def detach(self) -> None:
        """Make the connection useless in a forked child, and leave the session to the parent."""
        self.cut_off = True
        if not self.closed:
            # libpq's descriptor is then /dev/null, so that not even close() can reach the server.
            devnull = os.open(os.devnull, os.O_RDWR)
            os.dup2(devnull, self.fileno(), inheritable=False)
            os.close(devnull)
        self._release()


def _release(descriptor: socket.socket) -> None:
    _open_descriptors.discard(descriptor.fileno())
    descriptor.close()


class _Cursor(PsycopgCursor):
    """A cursor that waits for the server only until the deadline of its connection."""

    connection: Connection

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002, the name in psycopg2
        limit = self.connection.statement_limit
        if limit and not self.connection.is_in_transaction:  # it lasts until the end of the transaction
            query = f"{limit};\n{query}"
        self.connection.call_with_deadline(super().execute, query, vars)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        return self.connection.call_with_deadline(super().fetchmany, size)


def connect(url: str) -> Connection:
    """Open a connection in autocommit mode, which saves a lone SELECT the round trips of BEGIN and COMMIT.

    Args:
        url: A libpq URI or a ``key=value`` string.

    Returns:
        The connection. Its cursors return a timestamp without time zone as the text that Postgres writes.

    Raises:
        psycopg2.OperationalError: The database cannot be reached, or refuses.
    """
    parameters = connection_parameters(url)
    connection: Connection = log_in(
        lambda: psycopg2.connect(**parameters, connection_factory=Connection, cursor_factory=_Cursor)
    )
    connection.autocommit = True
    # Timestamps stay text. A third of the fetch time would go into datetime objects, which become text again.
    # It has the effect of register_type() on one connection, without new_type(), which decodes values twice.
    connection.string_types[_TIMESTAMP] = UNICODE
    return connection
