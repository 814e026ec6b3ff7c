"""Runs the real command in a process of its own, and speaks to it as its users do."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

COMMAND = Path(sys.executable).with_name("medmitra-cases")
TIMEOUT_SECONDS = 30


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for a condition that is soon to hold."""
    give_up_at = time.monotonic() + TIMEOUT_SECONDS
    while not holds():
        assert time.monotonic() < give_up_at
        # It is about other processes, which tell nobody: so look again, but leave them the core meanwhile.
        time.sleep(0.005)


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without settings of ours, and with these variables.

    The admin listener is off unless they say where: several processes of the tests run at once.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "DATABASE_URL" and not name.startswith("MEDMITRA_")
    }
    return {**kept, "MEDMITRA_ADMIN_LISTEN": "off", **variables}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return run_program([COMMAND, *arguments], variables)


def run_program(
    command: Sequence[str | Path], variables: dict[str, str], **how: Any
) -> subprocess.CompletedProcess[str]:
    """Run any program to its end, in the environment of the command; ``how`` is ``subprocess.run``'s."""
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": TIMEOUT_SECONDS}
    return subprocess.run(
        command, env=environment(**variables), text=True, check=False, **{**defaults, **how}
    )


class Running:
    """The command while it runs: where it listens, what it printed, how to ask it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        # Read all the time: a pipe that nobody empties would stop the server at 64 kB.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_it_listens(self) -> None:
        """Wait for the line that says where."""
        address = urlsplit(self.wait_for(r"Serving (?:cases )?on ((?:http|unix):\S+)")[1])
        self.host, self.port = address.hostname or "", address.port or 0
        self.unix_socket = address.path

    @property
    def admin_port(self) -> int:
        """Where the admin listener is."""
        return int(self.wait_for(r"probes and metrics on http://127\.0\.0\.1:(\d+)")[1])

    def ask_admin(self, target: str) -> tuple[int, str]:
        """Send the admin listener a request; returns the status and the body."""
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=TIMEOUT_SECONDS)
        ) as connection:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def metric(self, name: str) -> float:
        """What a metric says, named with its labels as Prometheus writes them; 0 where there is none yet."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask_admin("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def printed(self) -> str:
        """What it has printed so far."""
        return "".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed this."""
        with self._changed:
            self._changed.wait_for(lambda: re.search(pattern, self.printed) or self._ended, TIMEOUT_SECONDS)
            found = re.search(pattern, self.printed)
        if found is None:
            raise AssertionError(f"{self.process.poll()}: {self.printed}")
        return found

    def get(self, target: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one request; returns the answer and its body."""
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            return response, response.read()

    def connect(self) -> socket.socket:
        """Open a connection to where it listens."""
        if self.host:
            return socket.create_connection((self.host, self.port), TIMEOUT_SECONDS)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(self.unix_socket)
        return connection

    def send(self, raw: bytes) -> bytes:
        """Send bytes as they are; returns all that comes until the server closes."""
        with self.connect() as connection:
            connection.sendall(raw)
            answer = b""
            while received := connection.recv(65_536):
                answer += received
            return answer

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; returns the exit status."""
        self.process.send_signal(number)
        return self.wait_for_its_end()

    def wait_for_its_end(self) -> int:
        """Wait until it has ended and all that it printed has been read; returns the exit status."""
        status = self.process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        return status


@contextmanager
def running(*command: str | Path, **variables: str) -> Iterator[Running]:
    """Run a server command; stdout and stderr are one. Ended at the latest with the block."""
    with _running(command, variables) as server:
        yield server


def serve(database_url: str, **variables: str) -> AbstractContextManager[Running]:
    """Run the service on that database, on a free port."""
    return running(COMMAND, "serve", "--listen", "127.0.0.1:0", DATABASE_URL=database_url, **variables)


@contextmanager
def running_on(handed_over: socket.socket, *command: str | Path, **variables: str) -> Iterator[Running]:
    """Run a server command that a socket is handed over to as systemd does: as descriptor 3."""
    # The pid is known only to the process itself; exec keeps it.
    shell = ("sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", *command)
    with _running(
        shell, variables, pass_fds=(3,), preexec_fn=lambda: os.dup2(handed_over.fileno(), 3)
    ) as server:
        yield server


@contextmanager
def _running(command: Sequence[str | Path], variables: dict[str, str], **how: Any) -> Iterator[Running]:
    with subprocess.Popen(
        command,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **how,
    ) as process:
        server = Running(process)
        try:
            server.wait_until_it_listens()
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
            server.wait_for_its_end()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for the length of the block, but no longer than a test waits."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except (ProcessLookupError, PermissionError):
        pytest.skip("the server's processes are not ours to stop")
    limit = threading.Timer(TIMEOUT_SECONDS, os.kill, (pid, signal.SIGCONT))
    limit.start()
    try:
        yield
    finally:
        limit.cancel()
        os.kill(pid, signal.SIGCONT)


def processes_below(folder: Path) -> list[str]:
    """Command lines of running processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if str(folder) in command:
            found.append(command)
    return found
