"""Runs other programs, such as nginx, in front of or behind the service."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.processes import TIMEOUT_SECONDS, wait_until

# The start of a command that runs as nobody, because Postgres and PgBouncer refuse to run as root.
AS_NOBODY = (
    ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--") if os.geteuid() == 0 else ()
)


def tool(name: str) -> str:
    """Return the path of a program; skip the test if it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS):
        return True
    return False


@contextmanager
def background(
    *command: str | Path,
    log: Path,
    is_ready: Callable[[], object] = lambda: True,
    stop_signal: int = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until it is ready, and run it until the block ends."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:

        def is_running_and_ready() -> object:
            assert process.poll() is None, log.read_text()
            return is_ready()

        try:
            wait_until(is_running_and_ready)
            yield process
        finally:
            process.send_signal(stop_signal)
            process.wait(TIMEOUT_SECONDS)
