"""Runs a program that does not outlive the block it is run in, whatever signal ends that."""

import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medmitra_cases.errors import EmbeddedPostgresError

STOP_TIMEOUT_SECONDS = 10

_ENDING_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    account: pwd.struct_passwd | None,
    end: Callable[[subprocess.Popen[bytes]], None],
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for as long as the block lasts.

    Args:
        command: The program's path and its arguments.
        log: Takes the program's output; what it held before is lost.
        account: Who runs it, if not this process's user.
        end: Called with the process at the end of the block; returns when it has ended.

    Yields:
        The process.

    Raises:
        EmbeddedPostgresError: The account may not run the program.
    """
    # A signal whose handler raises while the process is being made would leave it running.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)
    try:
        process = _start(command, log, account)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield process
        finally:
            try:
                # Nor may a second signal cut short what ends it.
                signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)
            finally:
                end(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(
    command: Sequence[str | Path], log: Path, account: pwd.struct_passwd | None
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        try:
            return subprocess.Popen(  # noqa: S603, the commands are this package's own
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",  # the account may not be allowed into ours
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=None if account is None else [],
                start_new_session=True,  # Ctrl-C is for this process, which then ends the other
            )
        except PermissionError:
            who = account.pw_name if account else "this user"
            raise EmbeddedPostgresError(
                f"{who} may not run {command[0]}: a folder above it is closed to others"
            ) from None


def shut_down(postgres: subprocess.Popen[bytes]) -> None:
    """End a Postgres server without losing anything.

    Args:
        postgres: The server's first process.
    """
    postgres.send_signal(signal.SIGINT)  # "fast": ends sessions, then writes everything
    try:
        postgres.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        postgres.send_signal(signal.SIGQUIT)  # "immediate": recovers at the next start
        postgres.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process whose work does not matter, with those that it started; not if it has ended already.

    Args:
        process: The leader of a process group.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
