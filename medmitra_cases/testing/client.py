"""Tells the harness, which runs in a process of its own, what a test needs."""

import itertools
import os
from contextlib import suppress
from threading import RLock
from typing import IO, Any
from urllib.parse import urlencode

import msgspec


class HarnessError(Exception):
    """The harness did not start, has ended, or could not do what it was asked for. The message says why."""


class Harness:
    """The service while it runs, and the database behind it. Threads may share it; forked processes may not.

    Attributes:
        base_url: Where the service is, such as ``http://127.0.0.1:41234``.
        database_url: The database's address (a URI as libpq reads it), as its owner, for whatever else.
    """

    def __init__(self, requests: IO[bytes], answers: IO[bytes], log: IO[bytes]) -> None:
        """Wait until it is ready.

        Args:
            requests: The stdin of ``medmitra-cases harness``.
            answers: Its stdout.
            log: The file that takes its stderr.

        Raises:
            HarnessError: It ended instead.
        """
        self._requests = requests
        self._answers = answers
        self._log = log
        self._reported = 0
        self._lock = RLock()
        self._serial = itertools.count()
        self._pid = os.getpid()
        ready = self._receive()
        self.base_url: str = ready["url"]
        self.database_url: str = ready["database_url"]

    def url(self, path: str = "", /, **query: object) -> str:
        """Write an address of the service.

        Args:
            path: The path, such as ``/cases/all_cases``.
            **query: The query's parameters; several values of one as a list.

        Returns:
            The URL.
        """
        return f"{self.base_url}{path}{'?' if query else ''}{urlencode(query, doseq=True)}"

    def add_case(self, /, *, user_id: object, **values: object) -> dict[str, Any]:
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

    def update_case(self, case_id: object, /, **values: object) -> dict[str, Any]:
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

        Raises:
            HarnessError: The block has ended.
        """
        with self._lock:
            self._check_open()
            with suppress(HarnessError):  # it has ended by itself, and may say why
                self._ask("flush_log")
            return self._read_log()

    def _ask(self, command: str, /, **arguments: object) -> Any:
        with self._lock:
            self._check_open()
            serial = next(self._serial)
            with suppress(BrokenPipeError):  # what is to be read instead says why
                self._requests.write(msgspec.json.encode({"id": serial, command: arguments}) + b"\n")
                self._requests.flush()
            answer = self._receive()
            while answer.get("id") != serial:  # somebody was interrupted before he had read this
                answer = self._receive()
        if "error" in answer:
            raise HarnessError(answer["error"])
        return answer["result"]

    def _check_open(self) -> None:
        if self._log.closed:
            raise HarnessError("the harness has ended")
        if os.getpid() != self._pid:
            raise HarnessError(
                "only the process that started the harness may use it, not one that forked off"
            )

    def _receive(self) -> dict[str, Any]:
        line = self._answers.readline()
        try:
            answer: dict[str, Any] = msgspec.json.decode(line)
        except msgspec.DecodeError:
            said = line.decode(errors="replace") or self._read_log()
            raise HarnessError(f"the harness has ended: {last_line(said)}") from None
        return answer

    def _read_log(self) -> str:
        # Without moving the place in the file: the process writes there.
        descriptor = self._log.fileno()
        read = os.pread(descriptor, os.fstat(descriptor).st_size - self._reported, self._reported)
        self._reported += len(read)
        return read.decode(errors="replace")


def last_line(text: str) -> str:
    """Take what a program said at its end.

    Args:
        text: All that it said.

    Returns:
        The last line.
    """
    return text.strip().rpartition("\n")[2]
