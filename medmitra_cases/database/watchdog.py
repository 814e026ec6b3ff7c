"""Ends connections whose server does not respond."""

import threading
import time
import weakref

from medmitra_cases.database.connection import Connection
from medmitra_cases.database.sql_files import read_sql

# Seconds after the server's own statement_timeout until the connection is cut off. A server that has not
# cancelled the statement by then is frozen or unreachable.
MARGIN_SECONDS = 1.5
# The limit of limit_statements.sql, in seconds.
MAX_STATEMENT_SECONDS = 5.0
# The limit for the first statement if connect_timeout is 0, in seconds.
NO_TIMEOUT_SECONDS = 60.0

# Seconds between two checks of the connections.
POLL_SECONDS = 0.25

_SELECT_STATEMENT_TIMEOUT = read_sql("select_statement_timeout")
_LIMIT_STATEMENTS = read_sql("limit_statements")


class Watchdog:
    """Cuts off connections on which a statement gets no response before its deadline.

    No parameter of libpq does that: for TCP a frozen server is alive, and only the server itself enforces its
    statement_timeout. A thread checks the connections while any are open.
    """

    def __init__(self) -> None:
        """Start without connections and without a thread."""
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._running = False

    def watch(self, connection: Connection) -> Connection:
        """Watch a connection until it is closed.

        The timeout follows from the session's statement_timeout. A connection without one, or with more than
        MAX_STATEMENT_SECONDS, sets it for each transaction.

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
            # A pooler may connect to the server only now.
            connect_timeout = float(connection.info.dsn_parameters.get("connect_timeout") or 0)
            connection.answer_timeout_seconds = connect_timeout if connect_timeout > 0 else NO_TIMEOUT_SECONDS
            with connection.cursor() as cursor:
                cursor.execute(_SELECT_STATEMENT_TIMEOUT)
                ((limit_seconds,),) = cursor.fetchall()
        except BaseException:
            connection.close()
            raise
        if not 0 < limit_seconds <= MAX_STATEMENT_SECONDS:
            limit_seconds = MAX_STATEMENT_SECONDS
            connection.statement_limit = _LIMIT_STATEMENTS
        connection.answer_timeout_seconds = limit_seconds + MARGIN_SECONDS
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
