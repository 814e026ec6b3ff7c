"""Programs that are not Python's, such as nginx, run beside the service."""

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

# In front of a command: Postgres and PgBouncer refuse to run as root.
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--") if os.geteuid() == 0 else ()


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; as root, make installs it")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS):
        return True
    return False


@contextmanager
def background(
    *command: str | Path, log: Path, up: Callable[[], object] = lambda: True, end: int = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, from when it is up until the end of the block."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:

        def is_up() -> object:
            assert process.poll() is None, log.read_text()
            return up()

        try:
            wait_until(is_up)
            yield process
        finally:
            process.send_signal(end)
            process.wait(TIMEOUT_SECONDS)
