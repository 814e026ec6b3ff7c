"""The service as an operator runs it, the clients that ask it all the time, and what it costs the machine."""

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

THREADS = 8
ASKED = f"/cases/all_cases?user_id={DOCTOR}"

# How soon a request is answered, in seconds, whatever happens to the database: MEDMITRA_DATABASE_WAIT_SECONDS
# and some; and the role's statement_timeout and some where Postgres takes a query and does not answer.
GIVEN_UP_SECONDS = 3.5
CLOSE_SECONDS = 7.5

UNAVAILABLE, TIMED_OUT = "database unavailable", "query timed out"


def serving(dsn: str, **variables: str) -> AbstractContextManager[Running]:
    """The service, on ports of its own."""
    return serve(dsn, MEDMITRA_ADMIN_LISTEN="127.0.0.1:0", **variables)


def clients(port: int, count: int = 8) -> AbstractContextManager[Load]:
    """Clients that ask for the doctor's cases all the time."""
    return load(lambda: HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS), ASKED, count)


def at_once(server: Running, count: int = THREADS) -> list[Answer]:
    """Clients that ask once, all at the same time."""

    def ask(_: int) -> Answer:
        begun = time.monotonic()
        response, body = server.get(ASKED)
        ended = time.monotonic()
        return Answer(ended, ended - begun, response.status, body)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


def is_whole(answer: Answer) -> bool:
    """Whether it is all the doctor's cases."""
    return answer.status == 200 and answer.body.count(b'"case_id"') == CASES and answer.body.endswith(b"}]}")


def is_fault(answer: Answer, *phrases: str) -> bool:
    """Whether it is the documented 500 with one of these."""
    detail = rf"Internal server error: ({'|'.join(phrases)}) \(request id [0-9a-f]{{16}}\)"
    return answer.status == 500 and bool(re.fullmatch(rf'{{"detail":"{detail}"}}', answer.body.decode()))


class Resources(NamedTuple):
    """What the service holds: connections as it counts them and as Postgres does, threads, descriptors."""

    connections: float
    sessions: int
    threads: int
    descriptors: int


def resources(server: Running, postgres: Postgres) -> Resources:
    """What it holds while nobody asks, once all its threads have worked and found the database."""
    assert server.ask_admin("/readyz")[0] == 200
    with ThreadPoolExecutor(1) as pool:
        with postgres.locked():
            answers = pool.submit(at_once, server)
            wait_until(lambda: len(postgres.waiting) == THREADS)
        assert all(map(is_whole, answers.result()))
    looks = [_resources(server, postgres)]

    def settled() -> bool:
        looks.append(_resources(server, postgres))
        return looks[-3:] == 3 * looks[-1:]

    wait_until(settled)
    return looks[-1]


def _resources(server: Running, postgres: Postgres) -> Resources:
    process = Path(f"/proc/{server.process.pid}")
    return Resources(
        server.metric("medmitra_database_connections_open"),
        len(postgres.sessions),
        len(list((process / "task").iterdir())),
        len(list((process / "fd").iterdir())),
    )
