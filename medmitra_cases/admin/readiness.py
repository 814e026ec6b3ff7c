"""Checks whether the database can be read, with one connection and a timeout for any number of probes."""

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
from medmitra_cases.telemetry import call_after_fork

# Seconds for the whole check, and the part of them for the attempts to connect.
CHECK_TIMEOUT_SECONDS = 1.0
CONNECT_TIMEOUT_SECONDS = 0.6

_log = logging.getLogger(__name__)


class _Problem(NamedTuple):
    public_text: str
    log_text: str


class Readiness:
    """Checks the database in its own thread, on its own connection if there can be one more.

    All requests may be waiting for the database at that time.
    """

    def __init__(self, database: Database, *, row_versions: bool | None) -> None:
        """Prepare the check, without connecting.

        Args:
            database: The database of the requests.
            row_versions: Whether entity tags are made of row versions; None if the definition of
                ``medmitra.cases`` decides.
        """
        self._row_versions = row_versions
        self._database = database.for_readiness(wait_seconds=CONNECT_TIMEOUT_SECONDS)
        self._last_logged: str | None = None
        self._reset()
        call_after_fork(self._reset)

    def _reset(self) -> None:
        self._requested: SimpleQueue[Future[_Problem | None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._latest: Future[_Problem | None] | None = None
        self._latest_at = 0.0

    def problem(self) -> str | None:
        """Check the database, or wait for the result of a check that is still running.

        Returns:
            The problem in a text without hosts and data; None if there is none.
        """
        try:
            latest, deadline = self._request_check()
            problem = latest.result(max(deadline - time.monotonic(), 0))
        except FutureTimeout:
            text = f"no answer from the database within {CHECK_TIMEOUT_SECONDS:g} s"
            problem = _Problem(text, text)
        except RuntimeError as error:  # the process may have no more threads at the moment
            problem = _Problem("unexpected error", repr(error))
        self._log_change(problem)
        return problem and problem.public_text

    def _request_check(self) -> tuple[Future[_Problem | None], float]:
        """Return the running check, or a new one, and its deadline."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run_checks, name="readiness", daemon=True)
                thread.start()
                self._thread, self._latest = thread, None
            if self._latest is None or self._latest.done():
                self._latest, self._latest_at = Future(), time.monotonic()
                self._requested.put(self._latest)
            return self._latest, self._latest_at + CHECK_TIMEOUT_SECONDS

    def _log_change(self, problem: _Problem | None) -> None:
        text = problem and problem.public_text
        with self._lock:
            changed, self._last_logged = text != self._last_logged, text
        if changed:
            _log.warning("not ready: %s", problem.log_text) if problem else _log.info("ready again")

    def _run_checks(self) -> None:
        while True:
            check = self._requested.get()
            problem = None
            try:
                self._database.read(time.monotonic(), check_readable, row_versions=self._row_versions)
            except DatabaseError as error:
                problem = _Problem(error.public_text, error.log_text())
            except Exception as error:
                problem = _Problem("unexpected error", repr(error))
            check.set_result(problem)
