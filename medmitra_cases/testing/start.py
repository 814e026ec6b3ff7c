"""Starts the harness in a process of its own, and ends it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from medmitra_cases.testing.client import Harness, HarnessError, last_line

# Names a server to use instead of an embedded one.
TEST_DATABASE_URL = "MEDMITRA_TEST_DATABASE_URL"

# How long it may take to end: its requests, then its Postgres.
END_SECONDS = 20

# The command, which imports nothing from the current folder: a test may have a module there that is called as
# one of Python's is.
_PROGRAM = """
import sys
sys.path = [folder for folder in sys.path if folder]
from medmitra_cases.cli.main import main
main(prog_name="medmitra-cases")
"""


@contextmanager
def harness(settings: Mapping[str, str] | None = None) -> Iterator[Harness]:
    """Run the service for as long as the block lasts.

    It is the real one, on a free port of 127.0.0.1 and on an empty database: in a Postgres that is started
    for it, or in the server that ``MEDMITRA_TEST_DATABASE_URL`` names (a superuser's address; the role
    ``medmitra_cases`` there is made or changed). It ends with this process, however that ends.

    Args:
        settings: Settings of the service by their variables, such as ``MEDMITRA_JWT_SECRET``, and
            ``MEDMITRA_TEST_DATABASE_URL``. Of this process's environment only the latter counts.

    Yields:
        What speaks to it.

    Raises:
        HarnessError: It did not start, or did not end as it should.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == TEST_DATABASE_URL or not name.startswith("MEDMITRA_")
    }
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(  # noqa: S603, the command is this package's own
            (sys.executable, "-c", _PROGRAM, "harness"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**kept, **(settings or {})},
            start_new_session=True,  # Ctrl-C is for the tests, which then end it
        ) as process,
    ):
        assert process.stdin is not None  # noqa: S101, for mypy
        assert process.stdout is not None  # noqa: S101
        try:
            yield Harness(process.stdin, process.stdout, log)
        finally:
            _end(process)
        if process.returncode != 0:
            log.seek(0)
            raise HarnessError(f"the harness ended badly: {last_line(log.read().decode(errors='replace'))}")


def _end(process: subprocess.Popen[bytes]) -> None:
    # Not by closing its stdin, which a process that forked off may hold open.
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
