"""Ends connections whose server does not answer."""

import threading
import time
import weakref

from medmitra_cases.database.connection import Connection
from medmitra_cases.database.sql_files import read_sql

# Seconds beyond the server's own statement_timeout that a statement may go unanswered. A server that has not
# cancelled it by then is frozen, or out of reach.
MARGIN_SECONDS = 1.5
# Seconds that a statement may go unanswered where the server sets no limit.
DEFAULT_ANSWER_TIMEOUT_SECONDS = 60.0

# Seconds between two looks at the connections.
POLL_SECONDS = 0.25

_SELECT_STATEMENT_TIMEOUT = read_sql("select_statement_timeout")


class Watchdog:
    """Cuts off the connections on which a statement goes unanswered for too long.

    No parameter of libpq does that: to TCP a frozen server is alive, and its statement_timeout is its own to
    keep. A thread looks at the connections for as long as there are any.
    """

    def __init__(self) -> None:
        """Begin with nothing to watch."""
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._running = False

    def watch(self, connection: Connection) -> Connection:
        """Watchdog a connection until it is closed, by the limit that its server keeps.

        Args:
            connection: The connection; not in use yet.

        Returns:
            The same.

        Raises:
            psycopg2.Error: It is lost already; it is closed then.
        """
        try:
            with self._lock:
                self._connections.add(connection)
                if not self._running:  # not sooner: a thread does not survive a fork
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
        """List what is watched.

        Returns:
            The connections that are open.
        """
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
        # In a method of its own: a connection named while the thread sleeps would be kept from being freed.
        now = time.monotonic()
        for connection in self.connections():
            if connection.answer_by < now:
                connection.cut()
