"""Starts ``medmitra-cases harness`` in a process of its own, and tells it what a test needs."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Lock
from typing import IO, Any
from urllib.parse import urlencode

import msgspec

# Names a server to use instead of an embedded one.
TEST_DATABASE_URL = "MEDMITRA_TEST_DATABASE_URL"

# How long it may take to end once its stdin is closed: its requests, then its Postgres.
END_SECONDS = 20


class HarnessError(Exception):
    """The harness did not start, has ended, or could not do what it was asked for. The message says why."""


class Harness:
    """The service while it runs, and the database behind it. Threads may share it.

    Attributes:
        base_url: Where the service is, such as ``http://127.0.0.1:41234``.
        database_url: The database's address (a URI as libpq reads it), as its owner, for whatever else.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        """Wait until it is ready.

        Args:
            process: ``medmitra-cases harness``, its stdin and stdout being pipes.
            log: The file that takes its stderr.

        Raises:
            HarnessError: It ended instead.
        """
        self._process = process
        self._log = log
        self._reported = 0
        self._lock = Lock()
        ready = self._receive()
        self.base_url: str = ready["url"]
        self.database_url: str = ready["database_url"]

    def url(self, path: str = "", **query: object) -> str:
        """Write an address of the service.

        Args:
            path: The path, such as ``/cases/all_cases``.
            **query: The query's parameters; several values of one as a list.

        Returns:
            The URL.
        """
        return f"{self.base_url}{path}{'?' if query else ''}{urlencode(query, doseq=True)}"

    def add_case(self, *, user_id: object, **values: object) -> dict[str, Any]:
        """Insert a case.

        Args:
            user_id: The doctor's UUID.
            **values: Others of the case's nine keys. Left out, name, age and gender are made up, and the rest
                is as the table has it: a new ``case_id``, no summary, ``pending``, created and updated now.

        Returns:
            The case as the service answers with it.

        Raises:
            HarnessError: The database or the schema of a case refused it.
        """
        case: dict[str, Any] = self._ask("add_case", user_id=user_id, **values)
        return case

    def update_case(self, case_id: object, **values: object) -> dict[str, Any]:
        """Change a case, as the AI does that analyses it.

        Args:
            case_id: Which.
            **values: What becomes of it. ``updated_at`` becomes now: the table sees to that.

        Returns:
            The case as the service now answers with it.

        Raises:
            HarnessError: There is no such case, or the change was refused.
        """
        case: dict[str, Any] = self._ask("update_case", case_id=case_id, **values)
        return case

    def clear(self) -> None:
        """Delete all cases."""
        self._ask("clear")

    def token(self, user_id: object, *, minutes: int = 60) -> str:
        """Issue a token, for a service whose settings have a ``MEDMITRA_JWT_SECRET``.

        Args:
            user_id: The UUID of the doctor it is for.
            minutes: How long it is good; less than 0 for one that has expired.

        Returns:
            What follows ``Authorization: Bearer``.

        Raises:
            HarnessError: There is no secret.
        """
        token: str = self._ask("token", user_id=user_id, minutes=minutes)
        return token

    def log(self) -> str:
        """Read what the service has logged since this was last called, its audit included.

        Returns:
            The lines, up to that of the last request that was answered.
        """
        with suppress(HarnessError):  # it has ended, and may say why
            self._ask("flush_log")
        return self._read_log()

    def _ask(self, command: str, **arguments: object) -> Any:
        with self._lock:
            if self._process.stdin is None or self._process.stdin.closed:
                raise HarnessError("the harness has ended")
            with suppress(BrokenPipeError):  # what is to be read instead says why
                self._process.stdin.write(msgspec.json.encode({command: arguments}) + b"\n")
                self._process.stdin.flush()
            answer = self._receive()
        if "error" in answer:
            raise HarnessError(answer["error"])
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            self._process.wait(END_SECONDS)
            raise HarnessError(
                f"the harness has ended: {self._read_log().strip() or self._process.returncode}"
            )
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer

    def _read_log(self) -> str:
        # Without moving the place in the file: the process writes there.
        descriptor = self._log.fileno()
        read = os.pread(descriptor, os.fstat(descriptor).st_size - self._reported, self._reported)
        self._reported += len(read)
        return read.decode(errors="replace")


@contextmanager
def harness(settings: Mapping[str, str] | None = None) -> Iterator[Harness]:
    """Run the service for as long as the block lasts.

    It is the real one, on a free port of 127.0.0.1 and on an empty database: in a Postgres that is started
    for it, or in the server that ``MEDMITRA_TEST_DATABASE_URL`` names (a superuser's address; the role
    ``medmitra_cases`` there is made or changed). It ends with this process, however that ends.

    Args:
        settings: Settings of the service by their variables, such as ``MEDMITRA_JWT_SECRET``. Those of this
            process's environment do not count.

    Yields:
        What speaks to it.

    Raises:
        HarnessError: It did not start.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == TEST_DATABASE_URL or not name.startswith("MEDMITRA_")
    }
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            (sys.executable, "-m", "medmitra_cases", "harness"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**kept, **(settings or {})},
            start_new_session=True,  # Ctrl-C is for the tests, which then end it
        ) as process,
    ):
        try:
            yield Harness(process, log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()  # the second one: at once
