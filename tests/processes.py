"""Runs the real command in a process of its own, and speaks to it as its users do."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMAND = Path(sys.executable).with_name("medmitra-cases")
PATIENCE_SECONDS = 30


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without settings of ours, and with these variables."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "DATABASE_URL" and not name.startswith("MEDMITRA_")
    }
    return {**kept, **variables}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [COMMAND, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


class Running:
    """The command while it runs: where it listens, what it printed, how to ask it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.printed = ""
        found = None
        while found is None:
            line = process.stdout.readline()
            if not line:
                raise AssertionError(f"ended with {process.wait()}: {self.printed}")
            self.printed += line
            found = re.search(r"(http|unix):\S+", line)
        address = urlsplit(found[0])
        self.host, self.port = address.hostname or "", address.port or 0
        self.unix_socket = address.path

    def get(self, target: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one request; returns the answer and its body."""
        with closing(
            http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        ) as connection:
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            return response, response.read()

    def connect(self) -> socket.socket:
        """Open a connection to where it listens."""
        if self.host:
            return socket.create_connection((self.host, self.port), PATIENCE_SECONDS)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_SECONDS)
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
        status = self.process.wait(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.printed += self.process.stdout.read()
        return status


@contextmanager
def running(*command: str | Path, **variables: str) -> Iterator[Running]:
    """Run a server command; stdout and stderr are one. Ended at the latest with the block."""
    with _running(command, variables) as server:
        yield server


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
        try:
            yield Running(process)
        finally:
            if process.poll() is None:
                process.terminate()


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
