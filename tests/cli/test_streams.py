"""Output that is full, closed, or a pipe without a reader: one line on stderr and status 1; serve goes on."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medmitra_cases import __version__
from tests.support.factories import DOCTOR, CasesDatabase
from tests.support.processes import (
    COMMAND,
    TIMEOUT_SECONDS,
    environment,
    run_program,
    running,
    wait_until,
)
from tests.support.programs import accepts_connections, free_port
from tests.support.tokens import SECRET

FULL, CLOSED = "Error: No space left on device\n", "Error: stdout is closed\n"

PRINTING = [
    ["--help"],
    ["--version"],
    ["serve", "--help"],
    ["token", "--user", DOCTOR],
    ["check"],
    ["init-db"],
]


@contextmanager
def broken(kind: str) -> Iterator[dict[str, Any]]:
    """Yield the options of ``subprocess.Popen`` for a stdout of this kind."""
    if kind == "closed":
        yield {"stdout": None, "preexec_fn": partial(os.close, 1)}
    elif kind == "full":
        with Path("/dev/full").open("w") as full:
            yield {"stdout": full}
    else:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            yield {"stdout": pipe}


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("kind", "message"), [("full", FULL), ("closed", CLOSED), ("pipe", "")])
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
def test_output_that_cannot_be_written_is_an_error(
    database: CasesDatabase, arguments: list[str], kind: str, message: str, unbuffered: str
) -> None:
    variables = {
        "DATABASE_URL": database.owner_dsn,
        "MEDMITRA_JWT_SECRET": SECRET,
        "PYTHONUNBUFFERED": unbuffered,
    }
    with broken(kind) as options:
        ended = run_program([COMMAND, *arguments], variables, **options)
    assert (ended.returncode, ended.stderr) == (1, message)


@pytest.mark.parametrize("kind", ["full", "closed", "pipe"])
def test_the_harness_needs_its_stdout(server_dsn: str, kind: str) -> None:
    variables = {"MEDMITRA_TEST_DATABASE_URL": server_dsn, "PYTHONUNBUFFERED": ""}
    with broken(kind) as options:
        ended = run_program([COMMAND, "harness"], variables, stdin=subprocess.PIPE, **options)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.endswith({"full": FULL, "closed": CLOSED, "pipe": ""}[kind])


def test_the_harness_without_stdin_ends(server_dsn: str) -> None:
    variables = {"MEDMITRA_TEST_DATABASE_URL": server_dsn}
    ended = run_program([COMMAND, "harness"], variables, preexec_fn=partial(os.close, 0))
    assert ended.returncode == 0
    assert ended.stdout.startswith('{"url":')
    assert ended.stdout.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("arguments", "streams", "status", "printed"),
    [
        ("--version", "2>/dev/full", 0, f"medmitra-cases, version {__version__}\n"),
        ("--version", "2>&-", 0, f"medmitra-cases, version {__version__}\n"),
        ("--version", "<&- 2>&-", 0, f"medmitra-cases, version {__version__}\n"),
        ("--version", ">/dev/full 2>/dev/full", 1, ""),
        ("--version", ">&- 2>&-", 1, ""),
        ("chek", "2>/dev/full", 2, ""),
        ("chek", "2>&-", 2, ""),
        ("chek", "<&- >&- 2>&-", 2, ""),
    ],
)
def test_the_status_does_not_depend_on_stderr(
    arguments: str, streams: str, status: int, printed: str, unbuffered: str
) -> None:
    ended = run_program(
        ["sh", "-c", f'exec "$0" {arguments} {streams}', COMMAND], {"PYTHONUNBUFFERED": unbuffered}
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, printed, "")


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("kind", ["full", "closed", "pipe"])
def test_serve_goes_on_if_the_start_line_cannot_be_printed(
    tmp_path: Path, kind: str, unbuffered: str
) -> None:
    variables = environment(DATABASE_URL="host=127.0.0.1 port=1", PYTHONUNBUFFERED=unbuffered)
    log = tmp_path / "log"
    with (
        broken(kind) as options,
        log.open("w") as stderr,
        started(
            [COMMAND, "serve", "--listen", "127.0.0.1:0"], env=variables, stderr=stderr, **options
        ) as process,
    ):
        line = re.compile(r"WARNING .*cannot print to stdout .*http://127\.0\.0\.1:(\d+) ")
        wait_until(lambda: line.search(log.read_text()))
        assert accepts_connections(int(line.findall(log.read_text())[0]))
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0
    assert "Exception" not in log.read_text()


def test_the_demo_goes_on_and_writes_no_token_to_the_log(folder: Path) -> None:
    variables = {"XDG_DATA_HOME": str(folder), "MEDMITRA_JWT_SECRET": SECRET}
    command = ("sh", "-c", f'exec "{COMMAND}" demo --listen 127.0.0.1:0 >/dev/full')
    with running(*command, **variables) as demo:
        assert demo.get(f"/cases/all_cases?user_id={DOCTOR}")[0].status == 401
        assert demo.end() == 0
    assert "Bearer" not in demo.printed


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_serve_goes_on_if_nothing_can_be_logged(streams: str) -> None:
    port = free_port()
    shell = f'exec "{COMMAND}" serve --listen 127.0.0.1:{port} {streams}'
    variables = environment(DATABASE_URL="host=127.0.0.1 port=1")
    with started(["sh", "-c", shell], env=variables, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: accepts_connections(port))
        opened = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)]
        assert not [name for name in opened if name.startswith("socket:")]
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0
