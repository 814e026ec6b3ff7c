"""Runs the real command in a process of its own, and speaks to it as its users do."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
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
        for line in process.stdout:
            self.printed += line
            if "http://" in line:
                break
        else:
            raise AssertionError(f"ended with {process.wait()}: {self.printed}")
        address = urlsplit(self.printed[self.printed.index("http://") :].split()[0])
        assert address.hostname is not None
        assert address.port is not None
        self.host, self.port = address.hostname, address.port

    def get(self, target: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one request; returns the answer and its body."""
        with closing(
            http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        ) as connection:
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            return response, response.read()

    def send(self, raw: bytes) -> bytes:
        """Send bytes as they are; returns all that comes until the server closes."""
        with socket.create_connection((self.host, self.port), PATIENCE_SECONDS) as connection:
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
    with subprocess.Popen(
        command,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
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
