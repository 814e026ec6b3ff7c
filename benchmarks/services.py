"""Starts and ends the servers that are measured."""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, NamedTuple

from benchmarks.commands import CHECKOUT, OURS, UNBOUND, WITH_SOCKET, command_of, environ_of
from benchmarks.database import doctor_id
from benchmarks.errors import BenchmarkError

START_TIMEOUT_SECONDS = 20
STOP_TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.005


class Service(NamedTuple):
    """A server that answers.

    Attributes:
        port: Where it listens on 127.0.0.1.
        pid: Its process, or the first of several.
    """

    port: int
    pid: int

    def url(self, doctor: int) -> str:
        """Write the URL of a doctor's cases.

        Args:
            doctor: The doctor's number.

        Returns:
            The URL.
        """
        return f"http://127.0.0.1:{self.port}{path(doctor)}"


def path(doctor: int) -> str:
    """Write the path of a doctor's cases.

    Args:
        doctor: The doctor's number.

    Returns:
        The path with its query.
    """
    return f"/cases/all_cases?user_id={doctor_id(doctor)}"


@contextmanager
def running(server: str, database_url: str, processes: int = 1) -> Iterator[Service]:
    """Run a server for as long as the block lasts.

    Args:
        server: One of the names in ``benchmarks.commands``.
        database_url: The database it reads.
        processes: How many processes share the address.

    Yields:
        The server, once it answers; a second process may need a moment more, which is left to the warm-up.

    Raises:
        BenchmarkError: It does not start.
    """
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            port = listener.getsockname()[1]
            handed_over = server in (OURS, UNBOUND) and processes > 1
            if not handed_over:
                listener.close()  # the server takes the port itself
            environ = environ_of(server, database_url, port, processes)
            started = []
            for number in range(processes if handed_over else 1):
                command = command_of(server, port, processes, number)
                if handed_over:
                    command = [*WITH_SOCKET, *command]
                started.append(
                    stack.enter_context(_process(command, environ, listener if handed_over else None, log))
                )
        _wait_until_it_answers(server, port, started, log)
        yield Service(port, started[0].pid)


@contextmanager
def _process(
    command: list[str], environ: Mapping[str, str], stdin: socket.socket | None, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603, the commands are ours
        command,
        stdin=subprocess.DEVNULL if stdin is None else stdin.fileno(),
        stdout=log,
        stderr=log,
        cwd=CHECKOUT,
        env=environ,
        start_new_session=True,  # a group of its own, so that its workers end with it
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_it_answers(
    server: str, port: int, started: list[subprocess.Popen[bytes]], log: IO[bytes]
) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_SECONDS
    while not _answers(port):
        ended = any(process.poll() is not None for process in started)
        if ended or time.monotonic() > give_up_at:
            log.seek(0)
            said = " / ".join(log.read().decode("utf-8", "replace").splitlines()[-4:])
            raise BenchmarkError(f"{server} {'ended' if ended else 'does not answer'}: {said}")
        time.sleep(POLL_SECONDS)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path(0))
        return connection.getresponse().status in (http.client.OK, http.client.UNAUTHORIZED)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
