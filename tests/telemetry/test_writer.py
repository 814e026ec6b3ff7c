"""The log when stderr or the threads fail it: no request waits, and no line is lost unseen."""

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.factories import DOCTOR
from tests.support.processes import TIMEOUT_SECONDS, Running, environment, wait_until
from tests.support.programs import free_port

ASKED = f"/cases/all_cases?user_id={DOCTOR}"
LOST = "medmitra_log_lines_lost_total"
# The capacity of a pipe (pipe(7)).
PIPE_BYTES = 65_536
REPORT = re.compile(
    r"lines of the log and the audit are missing here, because stderr accepted no data: (\d+)"
)

# The command with a small bound; requests fail fast, and each leaves a line in the log and one in the audit.
SERVE = """
import sys
from medmitra_cases.cli import main as cli
from medmitra_cases.telemetry import writer

writer.MAX_QUEUED_BYTES = 20_000
sys.argv[0] = "medmitra-cases"
cli.main()
"""
NO_DATABASE = {"DATABASE_URL": "host=127.0.0.1 port=1", "MEDMITRA_DATABASE_WAIT_SECONDS": "0"}

# Programs with the application, and requests to it in their own process.
BEGIN = f"""
import logging, os, resource, sys, threading
from medmitra_cases import create_app
from medmitra_cases.telemetry import logs, metrics, writer

logs.configure("json")
app = create_app()
audit = logging.getLogger("medmitra_cases.audit")

def ask(name):
    return app.test_client().get("{ASKED}", headers={{"X-Request-ID": name}}).status_code

def lost():
    return metrics.REGISTRY.get_sample_value({LOST!r})
"""


def run(
    text: str, stderr: int | IO[Any] = subprocess.PIPE, first: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; ``first`` comes before there is an application."""
    return subprocess.run(
        [sys.executable, "-c", first + BEGIN + text],
        env=environment(**NO_DATABASE),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("failures", [1, 10, 1_000])
def test_threads_that_cannot_be_started(failures: int) -> None:
    """As if the user had too many processes (RLIMIT_NPROC), which the tests of root cannot have."""
    first = f"""
import threading
start, left = threading.Thread.start, {failures}
def limited(thread):
    global left
    if thread.name == "log" and left:
        left -= 1
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = limited
"""
    text = """
for number in range(51):
    assert ask(f"number-{number}") == 500
print(left, lost())
"""
    ended = run(text, first=first)
    assert ended.returncode == 0, ended.stderr
    names = [line["request_id"] for line in map(json.loads, ended.stderr.splitlines()) if "outcome" in line]
    assert names == [f"number-{number}" for number in range(51)]
    assert ended.stdout == f"{max(failures - 103, 0)} 0.0\n"  # each line tries, and one is of the start


def test_a_thread_that_has_ended_is_started_again() -> None:
    ended = run("""
def fail(*_):
    raise MemoryError
write, writer.write_to_stderr = writer.write_to_stderr, fail
threading.excepthook = lambda _: None
ask("before")
for thread in threading.enumerate():
    if thread.name == "log":
        thread.join()
writer.write_to_stderr = write
ask("after")
""")
    *_, report, _log, audit = map(json.loads, ended.stderr.splitlines())
    assert REPORT.search(report["message"])
    assert audit["request_id"] == "after"


@contextmanager
def serving(stderr: int | IO[Any], *before: str) -> Iterator[tuple[Running, Callable[[], float]]]:
    """Run the service with this stderr; yields it, and what its metric of lost lines says."""
    admin_port = free_port()

    def lost() -> float:
        with closing(
            http.client.HTTPConnection("127.0.0.1", admin_port, timeout=TIMEOUT_SECONDS)
        ) as connection:
            connection.request("GET", "/metrics")
            (line,) = re.findall(rf"^{LOST} (.+)$", connection.getresponse().read().decode(), re.MULTILINE)
        return float(line)

    with subprocess.Popen(
        [*before, sys.executable, "-c", SERVE, "serve", "--listen", "127.0.0.1:0"],
        env=environment(MEDMITRA_ADMIN_LISTEN=f"127.0.0.1:{admin_port}", **NO_DATABASE),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    ) as process:
        server = Running(process)
        try:
            server.wait_until_listening()
            yield server, lost
        finally:
            process.kill()


def ask(server: Running, count: int) -> None:
    """Send requests, each of which leaves two lines."""
    for number in range(count):
        assert server.get(ASKED, **{"X-Request-ID": f"number-{number}"})[0].status == 500


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The ends of a pipe: to read from, and to write to."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def read_until(reading: int, pattern: re.Pattern[str]) -> str:
    """Read from a pipe until this has come."""
    os.set_blocking(reading, False)
    text = ""

    def found() -> bool:
        nonlocal text
        with suppress(BlockingIOError):
            text += os.read(reading, 1 << 16).decode()
        return pattern.search(text) is not None

    wait_until(found)
    return text


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stderr_that_nobody_reads_for_a_while(pipe: tuple[int, int], blocking: bool) -> None:
    reading, writing = pipe
    os.set_blocking(writing, blocking)
    with serving(writing) as (server, lost):
        os.close(writing)
        requests = 0
        while lost() < 50:
            ask(server, 50)
            requests += 50
        text = read_until(reading, REPORT)
        (report,) = REPORT.findall(text)
        assert server.get(ASKED, **{"X-Request-ID": "after"})[0].status == 500
        text += read_until(reading, re.compile('"request_id":"after","client".*\n'))
        assert lost() == int(report)
        # All that is missing is missing in one place, and the count is right.
        assert text.count("number-") + int(report) == 2 * requests
        assert len(REPORT.findall(text)) == 1
        assert server.end() == 0


def test_a_process_ends_although_nobody_reads_its_stderr(pipe: tuple[int, int]) -> None:
    with serving(pipe[1]) as (server, lost):
        while lost() < 50:
            ask(server, 50)
        assert server.end() == 0


def test_a_stderr_that_refuses_to_be_written() -> None:
    with Path("/dev/full").open("w") as full, serving(full) as (server, lost):
        ask(server, 10)
        wait_until(lambda: lost() >= 20)
        assert server.end() == 0


def test_a_stderr_that_was_closed_at_the_start() -> None:
    with serving(subprocess.DEVNULL, "sh", "-c", 'exec "$@" 2>&-', "sh") as (server, lost):
        ask(server, 10)
        wait_until(lambda: lost() >= 20)
        assert server.end() == 0


def test_a_reader_that_has_gone(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with serving(writing) as (server, lost):
        os.close(writing)
        os.close(reading)
        ask(server, 10)
        wait_until(lambda: lost() >= 20)
        assert server.end() == 0


def test_the_queue_is_bounded_in_bytes_and_all_lines_are_written_or_counted(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    text = """
line = "x" * 249
for _ in range(40_000):
    audit.info(line)
print(lost(), flush=True)
"""
    program = [sys.executable, "-c", BEGIN + text]
    with (
        subprocess.Popen(
            program, env=environment(**NO_DATABASE), stdout=subprocess.PIPE, stderr=writing, text=True
        ) as process,
        open(reading, closefd=False) as stderr,
    ):
        os.close(writing)
        assert process.stdout is not None
        lost = float(process.stdout.readline())  # nothing has been read yet
        *_, report = lines = stderr.read().splitlines()
        assert process.wait(TIMEOUT_SECONDS) == 0
    written = lines.count("x" * 249)
    assert written + lost == 40_000
    # The pipe itself holds what the writer wrote before the queue was full.
    assert (4 << 20) - 1_000 <= written * 250 <= (4 << 20) + PIPE_BYTES
    assert json.loads(report)["message"] == REPORT.pattern.replace(r"(\d+)", f"{lost:.0f}")
    assert json.loads(report)["level"] == "ERROR"


def test_a_full_disk_tears_no_line_that_comes_later(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("a") as stderr:
        ended = run(
            """
for handler in audit.handlers:
    handler.flush()
limit = os.stat(2).st_size + 1_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for number in range(100):
    audit.info("%d %s", number, "x" * 90)
audit.handlers[0].flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
audit.info("after")
audit.handlers[0].flush()
print(lost())
""",
            stderr,
        )
    assert ended.returncode == 0
    lines = log.read_text().splitlines()
    whole = [line for line in lines if re.fullmatch(r"\d+ x{90}", line)]
    assert len(whole) + float(ended.stdout) == 100
    assert lines[-1] == "after"
    assert REPORT.search(lines[-2])
