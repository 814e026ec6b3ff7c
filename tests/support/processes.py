"""Runs the real command in a separate process, and sends it requests and signals."""

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
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

COMMAND = Path(sys.executable).with_name("medmitra-cases")
TIMEOUT_SECONDS = 30


def wait_until(condition: Callable[[], object], pause_seconds: float = 0.005) -> None:
    """Wait until the condition is true, asked again after each pause; fail after ``TIMEOUT_SECONDS``."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        # Conditions depend on other processes, which send no event. The pause leaves them the core.
        time.sleep(pause_seconds)


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without the service's settings, and with these variables.

    The admin listener is off by default, because several services run at the same time.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name != "DATABASE_URL" and not name.startswith("MEDMITRA_")
    }
    return {**inherited, "MEDMITRA_ADMIN_LISTEN": "off", **variables}


def import_that_waits(folder: Path) -> dict[str, str]:
    """Return variables with which the command prints ``importing``, and then waits for its first import."""
    (folder / "click.py").write_text(
        "import threading\nprint('importing', flush=True)\nthreading.Event().wait()\n"
    )
    return {"PYTHONPATH": str(folder)}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends."""
    return run_program([COMMAND, *arguments], variables)


def run_program(
    command: Sequence[str | Path], variables: dict[str, str], **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run any program in the command's environment until it ends; the options go to ``subprocess.run``."""
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": TIMEOUT_SECONDS}
    return subprocess.run(
        command, env=environment(**variables), text=True, check=False, **{**defaults, **options}
    )


class Running:
    """A running command: its addresses, its output, and requests to it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._eof = False
        self._changed = threading.Condition()
        # The thread reads all the time, because a full pipe (64 kB) would block the server.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_listening(self) -> None:
        """Wait for the line with the address, and parse it."""
        address = urlsplit(self.wait_for(r"Serving (?:cases )?on ((?:http|unix):\S+)")[1])
        self.host, self.port = address.hostname or "", address.port or 0
        self.unix_socket = address.path

    @property
    def admin_port(self) -> int:
        """Return the port of the admin listener."""
        return int(self.wait_for(r"probes and metrics on http://127\.0\.0\.1:(\d+)")[1])

    def ask_admin(self, target: str) -> tuple[int, str]:
        """Send a request to the admin listener; return the status and the body."""
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=TIMEOUT_SECONDS)
        ) as connection:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def metric(self, name: str) -> float:
        """Return the value of a metric, such as ``name{label="value"}``, or 0 before it exists."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask_admin("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._eof = True
            self._changed.notify_all()

    @property
    def printed(self) -> str:
        """Return everything that it has printed so far."""
        return "".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches the pattern."""
        with self._changed:
            self._changed.wait_for(lambda: re.search(pattern, self.printed) or self._eof, TIMEOUT_SECONDS)
            found = re.search(pattern, self.printed)
        if found is None:
            raise AssertionError(f"{self.process.poll()}: {self.printed}")
        return found

    def get(self, target: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one request; return the response and its body."""
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            return response, response.read()

    def connect(self) -> socket.socket:
        """Open a connection to its address."""
        if self.host:
            return socket.create_connection((self.host, self.port), TIMEOUT_SECONDS)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(self.unix_socket)
        return connection

    def send(self, raw: bytes) -> bytes:
        """Send raw bytes; return everything until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(raw)
            return receive_all(connection)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; return the exit status."""
        self.process.send_signal(number)
        return self.wait_for_its_end()

    def wait_for_its_end(self) -> int:
        """Wait until it has ended and its output is read; return the exit status."""
        status = self.process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        return status


def receive_all(connection: socket.socket) -> bytes:
    """Return everything until the other side closes the connection."""
    content = bytearray()
    while received := connection.recv(1 << 20):
        content += received
    return bytes(content)


def raw_request(path: str, version: str = "1.1") -> bytes:
    """Return a GET request as bytes."""
    return f"GET {path} HTTP/{version}\r\nHost: x\r\n\r\n".encode()


@contextmanager
def stalled(server: Running, requests: bytes, count: int = 1) -> Iterator[list[socket.socket]]:
    """Send requests on new connections, and read nothing until the block ends."""
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(server.connect())) for _ in range(count)]
        for client in clients:
            client.sendall(requests)
        yield clients


def running(*command: str | Path, **variables: str) -> AbstractContextManager[Running]:
    """Run a server command until the block ends; its output contains stdout and stderr."""
    return _running(command, variables)


def serve(database_url: str, **variables: str) -> AbstractContextManager[Running]:
    """Run the service on that database and on a free port."""
    return running(COMMAND, "serve", "--listen", "127.0.0.1:0", DATABASE_URL=database_url, **variables)


def running_on(
    listener: socket.socket, *command: str | Path, **variables: str
) -> AbstractContextManager[Running]:
    """Run a server command with an inherited socket: descriptor 3, as systemd passes it."""
    # LISTEN_PID must be the command's own pid. The shell knows it, and exec keeps it.
    shell = ("sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", *command)
    return _running(shell, variables, pass_fds=(3,), preexec_fn=lambda: os.dup2(listener.fileno(), 3))


@contextmanager
def _running(command: Sequence[str | Path], variables: dict[str, str], **options: Any) -> Iterator[Running]:
    with subprocess.Popen(
        command,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    ) as process:
        server = Running(process)
        try:
            server.wait_until_listening()
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
            server.wait_for_its_end()


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Stop processes until the block ends, at most for ``TIMEOUT_SECONDS``; skip the test if that fails."""
    stopped = [pid for pid in pids if _send_signal(pid, signal.SIGSTOP)]
    if pids and not stopped:
        pytest.skip("the tests may not stop the server's processes")

    def resume() -> None:
        for pid in stopped:
            _send_signal(pid, signal.SIGCONT)

    timer = threading.Timer(TIMEOUT_SECONDS, resume)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        resume()


def _send_signal(pid: int, number: int) -> bool:
    """Return whether the process exists and the tests may send it signals."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        return True
    return False


def processes_below(folder: Path) -> list[str]:
    """Return the command lines of running processes that contain the folder's path."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # the process has ended
        if str(folder) in command:
            found.append(command)
    return found
