"""Postgres ends connections, restarts, or is away for long."""

import time

import pytest

from tests.faults.postgres import FAST, IMMEDIATE, KILLED, Postgres
from tests.faults.service import (
    GIVEN_UP_SECONDS,
    THREADS,
    UNAVAILABLE,
    at_once,
    clients,
    is_fault,
    is_whole,
    serving,
)
from tests.support.processes import wait_until

pytestmark = pytest.mark.faults

# How long Postgres takes to restart, and how long it is away, in seconds.
RESTART_SECONDS = 2
OUTAGE_SECONDS = 20
# How soon after that all is as before.
BACK_SECONDS = 1

ANSWERED_500 = 'medmitra_http_request_seconds_count{route="/cases/all_cases",status="500"}'
RETRIES = "medmitra_database_retries_total"
CONNECTIONS = "medmitra_database_connections_open"


def test_connections_ended_again_and_again(postgres: Postgres) -> None:
    with serving(postgres.service_dsn) as server:
        with clients(server.port) as asking:
            for _ in range(50):
                asking.wait_for(20)
                postgres.terminate()
            asking.wait_for(100)
        assert asking.failed == []
        assert server.metric(RETRIES) >= 50


@pytest.mark.parametrize("how", [FAST, IMMEDIATE, KILLED], ids=["fast", "immediate", "killed"])
def test_restart(postgres: Postgres, how: int) -> None:
    with (
        serving(postgres.service_dsn) as server,
        serving(postgres.service_dsn) as idle,
        clients(server.port) as asking,
    ):
        assert all(map(is_whole, at_once(idle)))
        asking.wait_for(200)
        up_again_by = time.monotonic() + RESTART_SECONDS
        postgres.stop(how)
        wait_until(lambda: time.monotonic() > up_again_by - 0.5)
        postgres.start()
        assert time.monotonic() < up_again_by
        asking.wait_for(500)
        assert asking.failed == []
        assert asking.slowest <= GIVEN_UP_SECONDS
        assert all(map(is_whole, at_once(idle)))


def test_long_outage(postgres: Postgres) -> None:
    with (
        serving(postgres.service_dsn) as server,
        serving(postgres.service_dsn) as crowded,
        clients(server.port) as asking,
        clients(crowded.port, 64) as crowd,  # each waits for a thread most of the time
    ):
        assert server.ask_admin("/readyz")[0] == 200
        wait_until(lambda: server.metric(CONNECTIONS) == THREADS + 1)
        postgres.stop()
        down = time.monotonic()
        wait_until(lambda: server.ask_admin("/readyz")[0] == 503 and server.metric(CONNECTIONS) == 0)
        while time.monotonic() < down + OUTAGE_SECONDS:
            assert server.ask_admin("/livez")[0] == 200
            assert server.ask_admin("/readyz")[0] == 503
            assert server.metric(CONNECTIONS) == 0
        up = time.monotonic()
        postgres.start()
        back = time.monotonic()
        wait_until(lambda: time.monotonic() > back + BACK_SECONDS)
        assert server.ask_admin("/readyz")[0] == 200
        wait_until(lambda: server.metric(CONNECTIONS) == THREADS + 1)
        for load in asking, crowd:
            load.wait_for(500)
            load.stop()
        assert server.metric(ANSWERED_500) == len(asking.failed)
        assert server.metric(RETRIES) > len(asking.failed)
    for load in asking, crowd:
        assert all(is_fault(answer, UNAVAILABLE) for answer in load.failed)
        meanwhile = [
            answer
            for answer in load.answers
            if down < answer.ended_at - answer.seconds and answer.ended_at < up
        ]
        assert {answer.status for answer in meanwhile} == {500}
        assert load.slowest <= GIVEN_UP_SECONDS
        assert max(answer.ended_at for answer in load.failed) <= back + BACK_SECONDS
