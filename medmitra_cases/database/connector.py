"""Opens the connections of a pool, one at a time, with growing pauses while that fails."""

import math
import random
import re
import threading
import time
from collections.abc import Callable

from medmitra_cases.database.connection import Connection, connect
from medmitra_cases.database.watchdog import Watchdog

# Pauses after failed attempts, in seconds: none after the first, because an old failure says nothing about
# the present; then each is twice the previous, up to a maximum. It is low while no server responds, and high
# while one refuses: poolers ban clients for failed logins.
FIRST_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 0.4
MAX_REFUSED_PAUSE_SECONDS = 5.0
# After this time without a result the next attempt starts. A late connection of the first one is still used.
MAX_CONNECT_SECONDS = 10.0
# A connection is replaced at a random age between this part of the maximum age and the maximum age.
MIN_AGE_RATIO = 0.8

# In a message of libpq, the severity and the text of a server, such as "FATAL:  too many connections"; the
# severity can be in another language. psycopg2 has no SQLSTATE for a failed attempt to connect. A server that
# starts or stops will soon accept connections, and so will a closed database (ALLOW_CONNECTIONS false).
_REFUSAL = re.compile(r": [^\s:]+:  (?!the database system is |database .+ is not currently accepting )")


class Connector:
    """Opens connections in a thread: libpq can wait longer than a request for a silent host.

    All methods are called, and all functions are called back, with the lock of the pool.

    Attributes:
        error: The error of the last attempt; None if it succeeded.
        is_refused: Whether that error came from a server.
        next_attempt_at: The end of the pause after it, in seconds of the monotonic clock.
        connecting_since: When the present attempt began, in seconds of the monotonic clock; None without one.
    """

    def __init__(self, url: str, *, max_age_seconds: float, lock: threading.Lock) -> None:
        """Start without an attempt.

        Args:
            url: A libpq URI or a ``key=value`` string.
            max_age_seconds: The age at which a connection is replaced at the latest.
            lock: The lock of the pool.
        """
        self.error: Exception | None = None
        self.is_refused = False
        self.next_attempt_at = -math.inf
        self.connecting_since: float | None = None
        self._url = url
        self._max_age_seconds = max_age_seconds
        self._watchdog = Watchdog()
        self._changed = threading.Condition(lock)
        self._thread: threading.Thread | None = None
        self._failures = 0  # in a row, all refused or none

    def start(
        self, is_needed: Callable[[], bool], on_result: Callable[[Connection | Exception], None]
    ) -> None:
        """Open connections while they are needed, unless a thread does so already.

        Args:
            is_needed: A function that returns whether one more connection is needed.
            on_result: A function that takes the result of each attempt.

        Raises:
            RuntimeError: No thread could be started.
        """
        since = self.connecting_since
        is_late = since is not None and time.monotonic() > since + MAX_CONNECT_SECONDS
        if is_late or self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(
                target=self._run, args=(is_needed, on_result), name="connect", daemon=True
            )
            thread.start()
            self._thread, self.connecting_since = thread, None

    def end_pause(self) -> None:
        """Allow the next attempt at once, because a connection was closed that worked before."""
        self._failures, self.next_attempt_at = 0, -math.inf
        self._changed.notify_all()

    def _run(
        self, is_needed: Callable[[], bool], on_result: Callable[[Connection | Exception], None]
    ) -> None:
        thread = threading.current_thread()
        with self._changed:
            while self._thread is thread and is_needed():
                pause = self.next_attempt_at - time.monotonic()
                if pause > 0:
                    self._changed.wait(pause)
                    continue
                self.connecting_since = time.monotonic()
                self._changed.release()
                try:
                    result = self._open()
                finally:
                    self._changed.acquire()
                if self._thread is thread:  # the result of a replaced thread says nothing new
                    self.connecting_since = None
                    self._note(result)
                on_result(result)
                del result  # the thread would keep an idle connection
            if self._thread is thread:
                self._thread = None

    def _open(self) -> Connection | Exception:
        began_at = time.monotonic()
        try:
            connection = self._watchdog.watch(connect(self._url))
        except Exception as error:
            return error.with_traceback(None)  # its frames would keep the pool from being freed
        connection.opened_at = began_at
        age = self._max_age_seconds * random.uniform(MIN_AGE_RATIO, 1)  # noqa: S311, nothing secret
        connection.expires_at = began_at + age
        return connection

    def _note(self, result: Connection | Exception) -> None:
        if isinstance(result, Connection):
            self.error, self._failures = None, 0
            return
        refused = _REFUSAL.search(str(result)) is not None
        self._failures = self._failures + 1 if refused == self.is_refused else 1
        self.error, self.is_refused = result, refused
        longest = MAX_REFUSED_PAUSE_SECONDS if refused else MAX_PAUSE_SECONDS
        pause = (
            min(FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 2, 10), longest) if self._failures > 1 else 0
        )
        self.next_attempt_at = time.monotonic() + pause
