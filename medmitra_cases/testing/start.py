"""Starts the harness in another process, and ends it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress

from medmitra_cases.testing.client import Harness, last_line
from medmitra_cases.testing.errors import HarnessError, context_manager

# The variable with the connection string of a server to use instead of an embedded one.
TEST_DATABASE_URL = "MEDMITRA_TEST_DATABASE_URL"

# Seconds that the harness gets to complete its requests and to stop its Postgres.
END_TIMEOUT_SECONDS = 20

# Without the current folder in sys.path: a module of the tests there may have the name of one of Python's.
_PROGRAM = """
import sys
sys.path = [folder for folder in sys.path if folder]
from medmitra_cases.cli import run
run()
"""


@context_manager
def harness(settings: Mapping[str, str] | None = None) -> Iterator[Harness]:
    """Run the service until the block ends.

    It is the real service, on a free port of 127.0.0.1, with an empty database: in an embedded Postgres, or
    on the server of ``MEDMITRA_TEST_DATABASE_URL`` (a superuser's connection string; the harness creates or
    changes the role ``medmitra_cases`` there). The service also ends if this process is killed.

    Args:
        settings: Settings of the service by environment variable, such as ``MEDMITRA_JWT_SECRET``, and
            ``MEDMITRA_TEST_DATABASE_URL``. The environment of this process supplies only the latter.

    Yields:
        A client of the service.

    Raises:
        HarnessError: The harness did not start, or did not end with status 0.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name == TEST_DATABASE_URL or not name.startswith("MEDMITRA_")
    }
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(  # noqa: S603, a command of this package
            (sys.executable, "-c", _PROGRAM, "harness"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**inherited, **(settings or {})},
            start_new_session=True,  # Ctrl-C interrupts the tests, which then end the harness
        ) as process,
    ):
        assert process.stdin is not None  # noqa: S101, for mypy
        assert process.stdout is not None  # noqa: S101
        try:
            yield Harness(process.stdin, process.stdout, log)
        finally:
            _terminate(process)
            with suppress(BrokenPipeError):  # the process ended before it read its last command
                process.stdin.close()
        if process.returncode != 0:
            log.seek(0)
            message = last_line(log.read().decode(errors="replace"))
            raise HarnessError(f"the harness ended with status {process.returncode}: {message}")


def _terminate(process: subprocess.Popen[bytes]) -> None:
    # Not by closing its stdin, because a forked process may still hold it open.
    process.terminate()
    try:
        process.wait(END_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
