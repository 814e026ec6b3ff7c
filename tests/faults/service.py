"""Runs the service as an operator does, sends it requests, and measures its resources."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from tests.faults.postgres import CASES, Postgres
from tests.support.factories import DOCTOR
from tests.support.load import Answer, Load, load
from tests.support.processes import TIMEOUT_SECONDS, Running, serve, wait_until

THREADS = 4  # the default of MEDMITRA_THREADS
TARGET = f"/cases/all_cases?user_id={DOCTOR}"

# The maximum response times: if Postgres is down, MEDMITRA_DATABASE_WAIT_SECONDS and a margin; if it accepts
# a query and does not respond, the role's statement_timeout and a margin.
MAX_DOWN_SECONDS = 3.5
MAX_HANG_SECONDS = 7.5

UNAVAILABLE, TIMED_OUT = "database unavailable", "query timed out"


def serving(dsn: str, **variables: str) -> AbstractContextManager[Running]:
    """Run the service and its admin listener on free ports."""
    return serve(dsn, MEDMITRA_ADMIN_LISTEN="127.0.0.1:0", **variables)


def clients(port: int, count: int = 8, pause_seconds: float = 0) -> AbstractContextManager[Load]:
    """Run clients that request the doctor's cases, each with this pause after a response."""
    return load(
        lambda: HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS),
        TARGET,
        count,
        pause_seconds=pause_seconds,
    )


def send_at_once(server: Running, count: int = THREADS) -> list[Answer]:
    """Send requests at the same time, and return their results."""

    def send(_: int) -> Answer:
        started = time.monotonic()
        response, body = server.get(TARGET)
        ended = time.monotonic()
        return Answer(ended, ended - started, response.status, body)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(send, range(count)))


def has_all_cases(answer: Answer) -> bool:
    """Return whether the response is a 200 with all cases of the doctor."""
    return answer.status == 200 and answer.body.count(b'"case_id"') == CASES and answer.body.endswith(b"}]}")


def is_error(answer: Answer, *reasons: str) -> bool:
    """Return whether the response is the documented 500 with one of these reasons."""
    detail = rf"Internal server error: ({'|'.join(reasons)}) \(request id [0-9a-f]{{16}}\)"
    return answer.status == 500 and bool(re.fullmatch(rf'{{"detail":"{detail}"}}', answer.body.decode()))


class Resources(NamedTuple):
    """The service's resources: connections by its metric, backends in Postgres, threads, file descriptors."""

    connections: float
    backends: int
    threads: int
    descriptors: int


def measure_resources(server: Running, postgres: Postgres) -> Resources:
    """Make all requests and the readiness probe connect, and measure once the numbers no longer change."""
    wait_until(lambda: server.ask_admin("/readyz")[0] == 200)
    with ThreadPoolExecutor(2) as pool:
        with postgres.locked_table():
            answers = pool.submit(send_at_once, server)
            readiness = pool.submit(server.ask_admin, "/readyz")
            wait_until(lambda: len(postgres.waiting_backends) == THREADS + 1 or answers.done())
            assert not answers.done(), (answers.result(), server.printed)
        assert all(map(has_all_cases, answers.result()))
        readiness.result()
    samples = [_sample(server, postgres)]

    def last_three_are_equal() -> bool:
        samples.append(_sample(server, postgres))
        return samples[-3:] == 3 * samples[-1:]

    wait_until(last_three_are_equal)
    return samples[-1]


def _sample(server: Running, postgres: Postgres) -> Resources:
    process = Path(f"/proc/{server.process.pid}")
    return Resources(
        server.metric("medmitra_database_connections_open"),
        len(postgres.backends),
        len(list((process / "task").iterdir())),
        len(list((process / "fd").iterdir())),
    )
