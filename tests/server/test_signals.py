"""Signals during the start: serve, demo and harness end with 0, other commands by the signal."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import (
    COMMAND,
    TIMEOUT_SECONDS,
    environment,
    import_that_waits,
    processes_below,
    run_program,
    wait_until,
)

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
SERVICES = ["serve", "demo", "harness"]
OTHERS = ["check", "init-db", "load-sample"]


@contextmanager
def started(
    command: str, variables: dict[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run the command until the block ends, with its output in pipes."""
    with subprocess.Popen(
        [COMMAND, command],
        env=environment(**(variables or {})),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def assert_ended(process: subprocess.Popen[str], status: int) -> None:
    """Wait for the end of a process, which must have this status and print no error."""
    assert process.wait(TIMEOUT_SECONDS) == status
    assert process.stderr is not None
    assert process.stderr.read() == ""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", [*SERVICES, *OTHERS])
def test_a_signal_during_the_imports_ends_the_process(
    tmp_path: Path, command: str, number: signal.Signals
) -> None:
    with started(command, import_that_waits(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        assert_ended(process, 0 if command in SERVICES else -number)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", ["serve", "check"])
def test_signals_that_the_parent_process_blocked_end_the_process(
    command: str, number: signal.Signals
) -> None:
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    with started(command, {"DATABASE_URL": "host=127.0.0.1 port=1"}, preexec_fn=block) as process:
        process.send_signal(number)  # as soon as the process exists
        assert_ended(process, 0 if command in SERVICES else -number)


def test_an_ignored_signal_stays_ignored_during_the_imports(tmp_path: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with started("serve", import_that_waits(tmp_path), preexec_fn=ignore) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert_ended(process, 0)


def has_file_or_ended(folder: Path, name: str, process: subprocess.Popen[str]) -> bool:
    """Whether a Postgres below the folder has begun to write this file, or the process has ended."""
    return bool(list(folder.glob(f"*/{name}"))) or process.poll() is not None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_the_start_of_the_harness_leaves_nothing(
    folder: Path, number: signal.Signals
) -> None:
    for file in ("initdb.log", "postgres.log"):
        with started("harness", {"TMPDIR": str(folder), "MEDMITRA_TEST_DATABASE_URL": ""}) as process:
            wait_until(partial(has_file_or_ended, folder, file, process))
            process.send_signal(number)
            assert_ended(process, 0)
        assert not processes_below(folder)
        assert not list(folder.iterdir())


# The command, with a signal within a callback: Python ignores what a handler raises there.
SIGNALS_IN_CALLBACKS = {
    "of the garbage collector, just before it serves": """
import gc, signal, sys
collect = gc.collect

def collect_with_signal():
    gc.callbacks.append(lambda phase, _: phase == "stop" or signal.raise_signal(signal.SIGTERM))
    try:
        return collect()
    finally:
        gc.callbacks.clear()

gc.collect = collect_with_signal
""",
    "of a weak reference, during the start": """
import signal, weakref
from medmitra_cases.server import service
create_app = service.create_app

def create_app_with_signal(*args, **kwargs):
    referent = set()
    reference = weakref.ref(referent, lambda _: signal.raise_signal(signal.SIGTERM))
    del referent
    return create_app(*args, **kwargs)

service.create_app = create_app_with_signal
""",
}
SERVE = """
from medmitra_cases.cli.main import main
main(["serve", "--listen", "127.0.0.1:0"])
"""


@pytest.mark.parametrize("callback", SIGNALS_IN_CALLBACKS)
def test_a_signal_in_a_callback_ends_the_service(callback: str) -> None:
    ended = run_program(
        [sys.executable, "-c", SIGNALS_IN_CALLBACKS[callback] + SERVE],
        {"DATABASE_URL": "host=127.0.0.1 port=1"},
    )
    assert ended.returncode == 0
    assert "draining" in ended.stderr
