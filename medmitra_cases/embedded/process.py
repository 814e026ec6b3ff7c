"""Runs a program during a block, and ends it even if a signal ends the block."""

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
    stop: Callable[[subprocess.Popen[bytes]], None],
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program during the block.

    Args:
        command: The program's path and its arguments.
        log: The file for the program's output; its old content is lost.
        account: The account that runs the program, if it is not that of this process.
        stop: A function that ends the process at the end of the block, and waits for its end.

    Yields:
        The process.

    Raises:
        EmbeddedPostgresError: The account may not run the program.
    """
    # If a signal handler raised while the process starts, the process would keep running.
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)
    try:
        process = _start(command, log, account)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
            yield process
        finally:
            try:
                # A second signal must not interrupt stop().
                signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)
            finally:
                stop(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


def _start(
    command: Sequence[str | Path], log: Path, account: pwd.struct_passwd | None
) -> subprocess.Popen[bytes]:
    # Postgres quotes statements in its log, with the data in them. Its account gets the open file.
    log.unlink(missing_ok=True)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        try:
            return subprocess.Popen(  # noqa: S603, the commands are constants of this package
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",  # the account may have no access to the present one
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=None if account is None else [],
                start_new_session=True,  # Ctrl-C reaches only this process, which then ends the program
            )
        except PermissionError:
            user = account.pw_name if account else "this user"
            raise EmbeddedPostgresError(
                f"{user} may not run {command[0]}: a parent folder is closed to other users"
            ) from None


def shut_down(postgres: subprocess.Popen[bytes]) -> None:
    """End a Postgres server without losing data.

    Args:
        postgres: The server's first process.
    """
    postgres.send_signal(signal.SIGINT)  # "fast": ends the sessions, then writes all data
    try:
        postgres.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        postgres.send_signal(signal.SIGQUIT)  # "immediate": the next start recovers the data
        postgres.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and the processes that it started, if it still runs.

    Args:
        process: The leader of a process group.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
