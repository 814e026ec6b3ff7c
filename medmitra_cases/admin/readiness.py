"""Tells whether the database would answer, however many ask and however long it stays silent."""

import logging
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from queue import SimpleQueue
from typing import NamedTuple

from medmitra_cases.dao import check_readable
from medmitra_cases.database import Database
from medmitra_cases.errors import DatabaseError

# Seconds that the database gets to answer, and of these to be reached.
ANSWER_SECONDS = 1.0
CONNECT_SECONDS = 0.6

_log = logging.getLogger(__name__)


class _Problem(NamedTuple):
    """Why the database would not answer: in words for anyone, and in those for the log."""

    public_text: str
    log_text: str


class Readiness:
    """Asks the database in a thread of its own, on the one connection that this takes.

    The threads that answer requests may all be waiting for the database meanwhile.
    """

    def __init__(self, database_url: str, *, row_versions: bool) -> None:
        """Begin with nothing asked.

        Args:
            database_url: A libpq URI or ``key=value`` string.
            row_versions: Whether entity tags are made of the rows' versions.
        """
        self._row_versions = row_versions
        self._database = Database(database_url, wait_seconds=CONNECT_SECONDS)
        self._asked: SimpleQueue[Future[_Problem | None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._latest: Future[_Problem | None] | None = None
        self._latest_at = 0.0
        self._last_logged: str | None = None

    def problem(self) -> str | None:
        """Ask the database, unless somebody else's question is open still: then its answer counts.

        Returns:
            What is wrong, in words that name no host and no data; None if nothing is.
        """
        with self._lock:
            if self._latest is None:
                threading.Thread(target=self._answer, name="readiness", daemon=True).start()
            if self._latest is None or self._latest.done():
                self._latest, self._latest_at = Future(), time.monotonic()
                self._asked.put(self._latest)
            latest, give_up_at = self._latest, self._latest_at + ANSWER_SECONDS
        try:
            found = latest.result(max(give_up_at - time.monotonic(), 0))
        except FutureTimeout:
            text = f"no answer from the database within {ANSWER_SECONDS:g} s"
            found = _Problem(text, text)
        self._log_change(found)
        return found and found.public_text

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _log_change(self, found: _Problem | None) -> None:
        text = found and found.public_text
        with self._lock:
            changed, self._last_logged = text != self._last_logged, text
        if changed:
            _log.warning("not ready: %s", found.log_text) if found else _log.info("ready again")

    def _answer(self) -> None:
        while True:
            asked = self._asked.get()
            found = None
            try:
                self._database.read(time.monotonic(), check_readable, row_versions=self._row_versions)
            except DatabaseError as error:
                found = _Problem(error.public_text, error.log_text())
            except Exception as error:
                found = _Problem("unexpected error", repr(error))
            asked.set_result(found)
