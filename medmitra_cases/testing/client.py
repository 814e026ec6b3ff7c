"""The client of the harness, which runs in another process."""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from threading import RLock
from typing import IO, Any
from urllib.parse import urlencode

import msgspec

from medmitra_cases.testing.errors import HarnessError, context_manager
from medmitra_cases.testing.values import encode_command


class Harness:
    """The running service and its database. Threads can share it; forked processes cannot.

    Attributes:
        base_url: The address of the service, such as ``http://127.0.0.1:41234``.
        database_url: A libpq URI of the database, as its owner, for everything else.
    """

    def __init__(self, commands: IO[bytes], results: IO[bytes], log: IO[bytes]) -> None:
        """Wait until the service accepts requests.

        Args:
            commands: The stdin of ``medmitra-cases harness``.
            results: The stdout of that process.
            log: The file that receives its stderr.

        Raises:
            HarnessError: The process ended before.
        """
        self._commands = commands
        self._results = results
        self._log = log
        self._log_offset = 0
        self._lock = RLock()
        self._command_ids = itertools.count()
        self._pid = os.getpid()
        ready = self._receive()
        self.base_url: str = ready["url"]
        self.database_url: str = ready["database_url"]

    def url(self, path: str = "", /, **query: object) -> str:
        """Return a URL of the service.

        Args:
            path: The path, such as ``/cases/all_cases``.
            **query: The query parameters. A list is a repeated parameter.

        Returns:
            The URL.
        """
        return f"{self.base_url}{path}{'?' if query else ''}{urlencode(query, doseq=True)}"

    def add_case(self, /, *, user_id: object, **values: object) -> dict[str, Any]:
        """Insert a case.

        Args:
            user_id: The doctor's UUID.
            **values: Other keys of the nine. Name, age and gender have synthetic defaults. The others have
                those of the table: a new ``case_id``, no summary, ``pending``, both times now.

        Returns:
            The case as in the service's response.

        Raises:
            HarnessError: A value is invalid, or the database refused it.
        """
        __tracebackhide__ = True
        case: dict[str, Any] = self._execute("add_case", user_id=user_id, **values)
        return case

    def add_cases(self, count: int, /, *, user_id: object, **values: object) -> list[dict[str, Any]]:
        """Insert many cases at once, such as 10,000 within a second.

        Args:
            count: The number of cases, 0 to 100,000.
            user_id: The doctor's UUID.
            **values: Other keys, as for ``add_case``, except ``case_id``. All cases have these values.

        Returns:
            The cases as in the service's response, in insertion order.

        Raises:
            HarnessError: The count or a value is invalid, or the database refused it. No case is inserted.
        """
        __tracebackhide__ = True
        cases: list[dict[str, Any]] = self._execute("add_cases", count=count, user_id=user_id, **values)
        return cases

    def update_case(self, case_id: object, /, **values: object) -> dict[str, Any]:
        """Change a case, as the AI analysis does.

        Args:
            case_id: The case's UUID.
            **values: The new values. A trigger of the table sets ``updated_at`` to now.

        Returns:
            The changed case as in the service's response.

        Raises:
            HarnessError: The case does not exist, or the change was refused.
        """
        __tracebackhide__ = True
        case: dict[str, Any] = self._execute("update_case", case_id=case_id, **values)
        return case

    def clear(self) -> None:
        """Delete all cases."""
        __tracebackhide__ = True
        self._execute("clear")

    @context_manager
    def database_down(self) -> Iterator[None]:
        """Take the database down during the block.

        Requests for cases get a 500 and ``/readyz`` a 503, until the block ends. ``add_case`` and the other
        methods still work. Other harnesses on the same server are not affected.

        Yields:
            Nothing.

        Raises:
            HarnessError: The harness has ended.
        """
        self._execute("database_down")
        try:
            yield
        finally:
            self._execute("database_up")

    @context_manager
    def slow(self, seconds: float) -> Iterator[None]:
        """Make the responses to requests for cases slow during the block.

        Args:
            seconds: The time, 0 to 30 s, for which each response is kept back. At the end of the block the
                responses that wait are sent.

        Yields:
            Nothing.

        Raises:
            HarnessError: The time is invalid, or the harness has ended.
        """
        self._execute("slow", seconds=seconds)
        try:
            yield
        finally:
            self._execute("slow", seconds=0)

    def token(self, user_id: object, *, minutes: int = 60) -> str:
        """Issue a token. The settings of the service must contain ``MEDMITRA_JWT_SECRET``.

        Args:
            user_id: The UUID of the doctor that the token is for.
            minutes: Its lifetime; negative for an expired token.

        Returns:
            The token, without the word ``Bearer``.

        Raises:
            HarnessError: The settings contain no secret.
        """
        __tracebackhide__ = True
        token: str = self._execute("token", user_id=user_id, minutes=minutes)
        return token

    def log(self) -> str:
        """Return what the service has logged since the previous call, including its audit.

        Returns:
            The lines, up to that of the last request with a response.

        Raises:
            HarnessError: The context manager has exited.
        """
        __tracebackhide__ = True
        with self._lock:
            self._check_open()
            with suppress(HarnessError):  # the log of a harness that has crashed shows the reason
                self._execute("flush_log")
            return self._read_log()

    def _execute(self, command: str, /, **arguments: object) -> Any:
        __tracebackhide__ = True  # pytest shows the line of the test that called
        with self._lock:
            self._check_open()
            command_id = next(self._command_ids)
            line = encode_command({"id": command_id, command: arguments}) + b"\n"
            with suppress(BrokenPipeError):  # _receive() then raises an error with the reason
                self._commands.write(line)
                self._commands.flush()
            result = self._receive()
            while result.get("id") != command_id:  # an interrupted call did not read its result
                result = self._receive()
        if "error" in result:
            raise HarnessError(result["error"])
        return result["result"]

    def _check_open(self) -> None:
        __tracebackhide__ = True
        if self._log.closed:
            raise HarnessError("the harness has ended")
        if os.getpid() != self._pid:
            raise HarnessError("only the process that started the harness may use it, not a forked process")

    def _receive(self) -> dict[str, Any]:
        __tracebackhide__ = True
        line = self._results.readline()
        try:
            result: dict[str, Any] = msgspec.json.decode(line)
        except msgspec.DecodeError:
            printed = line.decode(errors="replace") or self._read_log()
            raise HarnessError(f"the harness has ended: {last_line(printed)}") from None
        return result

    def _read_log(self) -> str:
        # pread() does not move the file offset, which this process shares with the harness.
        descriptor = self._log.fileno()
        read = os.pread(descriptor, os.fstat(descriptor).st_size - self._log_offset, self._log_offset)
        self._log_offset += len(read)
        return read.decode(errors="replace")


def last_line(text: str) -> str:
    """Return the last line of a program's output.

    Args:
        text: The whole output.

    Returns:
        The last line.
    """
    return text.strip().rpartition("\n")[2]
