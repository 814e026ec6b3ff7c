"""The first process of a container (pid 1): the kernel sends it no signal for which it has no handler."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import COMMAND, TIMEOUT_SECONDS, environment, import_that_waits, wait_until
from tests.support.programs import accepts_connections, free_port, tool

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may create a namespace"),
]

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


class FirstProcess:
    """The command as the first process of a new pid namespace."""

    def __init__(self, unshare: subprocess.Popen[str]) -> None:
        self._unshare = unshare
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
        wait_until(lambda: children.read_text() or unshare.poll() is not None)
        self._pid = int(children.read_text())

    def wait_for_line(self, line: str) -> None:
        """Wait until it prints this line first."""
        assert self._unshare.stdout is not None
        assert self._unshare.stdout.readline() == line

    def end(self, number: signal.Signals) -> int:
        """Send the signal; return the exit status."""
        os.kill(self._pid, number)
        return self._unshare.wait(TIMEOUT_SECONDS)


@contextmanager
def first_process(*arguments: str, variables: dict[str, str], **options: Any) -> Iterator[FirstProcess]:
    """Run the command as a first process until the block ends."""
    with subprocess.Popen(
        [tool("unshare"), "--fork", "--pid", "--kill-child", COMMAND, *arguments],
        env=environment(**variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ) as unshare:
        try:
            yield FirstProcess(unshare)
        finally:
            unshare.kill()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", ["serve", "demo", "harness", "check"])
def test_a_signal_during_the_imports_ends_it(tmp_path: Path, command: str, number: signal.Signals) -> None:
    with first_process(command, variables=import_that_waits(tmp_path)) as process:
        process.wait_for_line("importing\n")
        assert process.end(number) == (128 + number if command == "check" else 0)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_running_service(number: signal.Signals) -> None:
    port = free_port()
    variables = {"DATABASE_URL": "host=127.0.0.1 port=1", "MEDMITRA_LISTEN": f"127.0.0.1:{port}"}
    with first_process("serve", variables=variables) as process:
        wait_until(lambda: accepts_connections(port))
        assert process.end(number) == 0


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_signal_that_was_blocked_when_it_started_is_not_lost(command: str) -> None:
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    variables = {"DATABASE_URL": "host=127.0.0.1 port=1", "MEDMITRA_LISTEN": "127.0.0.1:0"}
    with first_process(command, variables=variables, preexec_fn=block) as process:
        assert process.end(signal.SIGTERM) == (128 + signal.SIGTERM if command == "check" else 0)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_that_waits_for_the_database(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"host=127.0.0.1 port={silent.getsockname()[1]} connect_timeout=600"
        with first_process("check", variables={"DATABASE_URL": url}) as process, silent.accept()[0]:
            assert process.end(number) == 128 + number
