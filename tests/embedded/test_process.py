"""A program that runs during a block ends with the block, even if signals arrive."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from medmitra_cases.embedded.process import kill_group, running
from medmitra_cases.telemetry import exit_on_signals

SLEEP = ("/bin/sleep", "600")


@pytest.fixture(autouse=True)
def _exit_on_signals(original_handlers: None) -> None:  # noqa: ARG001
    exit_on_signals()


def assert_ended(started: list[subprocess.Popen[bytes]]) -> None:
    (process,) = started
    assert process.returncode is not None


def test_a_signal_during_the_start_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start_then_signal(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **kwargs))
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    monkeypatch.setattr("medmitra_cases.embedded.process.subprocess.Popen", start_then_signal)
    with pytest.raises(SystemExit), running(SLEEP, tmp_path / "log", None, kill_group):
        pass
    assert_ended(started)


def test_a_second_signal_does_not_prevent_the_end(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def signal_then_kill(process: subprocess.Popen[bytes]) -> None:
        signal.raise_signal(signal.SIGTERM)
        kill_group(process)

    def run_and_signal() -> None:
        with running(SLEEP, tmp_path / "log", None, signal_then_kill) as process:
            started.append(process)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        run_and_signal()
    assert_ended(started)


def test_signals_are_not_blocked_in_the_block_or_after_it(tmp_path: Path) -> None:
    original_mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with running(SLEEP, tmp_path / "log", None, kill_group):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == original_mask
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == original_mask
