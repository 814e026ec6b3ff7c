"""Ends connections whose server does not respond."""

import threading
import time
import weakref

from medmitra_cases.database.connection import Connection
from medmitra_cases.database.sql_files import read_sql
from medmitra_cases.telemetry import call_after_fork

# Seconds after the server's own statement_timeout until the connection is cut off. A server that has not
# cancelled the statement by then is frozen or unreachable.
MARGIN_SECONDS = 1.5
# Seconds until the connection is cut off if the server has no statement_timeout.
DEFAULT_ANSWER_TIMEOUT_SECONDS = 60.0

# Seconds between two checks of the connections.
POLL_SECONDS = 0.25

_SELECT_STATEMENT_TIMEOUT = read_sql("select_statement_timeout")


class Watchdog:
    """Cuts off connections on which a statement gets no response before its deadline.

    No parameter of libpq does that: for TCP a frozen server is alive, and only the server itself enforces its
    statement_timeout. A thread checks the connections while any are open.
    """

    def __init__(self) -> None:
        """Start without connections and without a thread."""
        self._reset()
        call_after_fork(self._reset)

    def _reset(self) -> None:
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._running = False

    def watch(self, connection: Connection) -> Connection:
        """Watch a connection until it is closed, with a timeout derived from the server's statement_timeout.

        Args:
            connection: A connection that is not in use yet.

        Returns:
            The same connection.

        Raises:
            psycopg2.Error: The connection is lost. It is closed.
        """
        try:
            with self._lock:
                self._connections.add(connection)
                if not self._running:  # not earlier, because threads do not survive a fork
                    threading.Thread(target=self._run, name="watch", daemon=True).start()
                    self._running = True
            with connection.cursor() as cursor:
                cursor.execute(_SELECT_STATEMENT_TIMEOUT)
                ((limit_seconds,),) = cursor.fetchall()
        except BaseException:
            connection.close()
            raise
        connection.answer_timeout_seconds = (
            limit_seconds + MARGIN_SECONDS if limit_seconds else DEFAULT_ANSWER_TIMEOUT_SECONDS
        )
        return connection

    def connections(self) -> list[Connection]:
        """Return the watched connections that are open."""
        with self._lock:
            return [connection for connection in self._connections if not connection.closed]

    def _run(self) -> None:
        while self._is_needed():
            time.sleep(POLL_SECONDS)
            self._cut_overdue()

    def _is_needed(self) -> bool:
        with self._lock:
            self._running = any(not connection.closed for connection in self._connections)
            return self._running

    def _cut_overdue(self) -> None:
        # A separate method: during the sleep no local variable may keep a connection from being freed.
        now = time.monotonic()
        for connection in self.connections():
            if connection.deadline < now:
                connection.cut()
