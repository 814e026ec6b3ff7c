"""Postgres ends connections, restarts, or is down for a long time."""

import time
from functools import partial

import pytest

from tests.faults.postgres import FAST, IMMEDIATE, KILLED, Postgres
from tests.faults.service import (
    MAX_DOWN_SECONDS,
    UNAVAILABLE,
    clients,
    has_all_cases,
    is_error,
    send_at_once,
    serving,
)
from tests.support.processes import wait_until

pytestmark = pytest.mark.faults

# How often Postgres ends all connections.
ENDS = 15
# How long Postgres takes to restart, and how long an outage lasts.
RESTART_SECONDS = 2
OUTAGE_SECONDS = 20
# How soon after an outage every request gets its cases again.
RECOVERY_SECONDS = 1

RESPONSES_500 = (
    'medmitra_http_request_seconds_count{error="database_unavailable",route="/cases/all_cases",status="500"}'
)
RETRIES = "medmitra_database_retries_total"
CONNECTIONS = "medmitra_database_connections_open"


def _is_past(moment: float) -> bool:
    return time.monotonic() > moment


def test_the_service_retries_if_postgres_ends_its_connections(postgres: Postgres) -> None:
    with serving(postgres.service_dsn) as server:
        with clients(server.port) as load:
            for _ in range(ENDS):
                load.wait_for(20)
                # A read is repeated once. So each has time to end before its next connection does.
                next_end_at = time.monotonic() + 1
                wait_until(partial(_is_past, next_end_at))
                postgres.terminate_backends()
            load.wait_for(100)
        assert load.failed == []
        assert server.metric(RETRIES) >= ENDS


@pytest.mark.parametrize("stop_signal", [FAST, IMMEDIATE, KILLED], ids=["fast", "immediate", "killed"])
def test_no_request_fails_while_postgres_restarts(postgres: Postgres, stop_signal: int) -> None:
    with (
        serving(postgres.service_dsn) as server,
        serving(postgres.service_dsn) as idle,
        clients(server.port) as load,
    ):
        assert all(map(has_all_cases, send_at_once(idle)))
        load.wait_for(200)
        restart_deadline = time.monotonic() + RESTART_SECONDS
        postgres.stop(stop_signal)
        wait_until(lambda: time.monotonic() > restart_deadline - 0.5)
        postgres.start()
        assert time.monotonic() < restart_deadline
        load.wait_for(500)
        assert load.failed == []
        assert load.slowest <= MAX_DOWN_SECONDS
        assert all(map(has_all_cases, send_at_once(idle)))


def test_the_service_recovers_from_a_long_outage(postgres: Postgres) -> None:
    with (
        serving(postgres.service_dsn) as server,
        serving(postgres.service_dsn) as crowded_server,
        clients(server.port) as small_load,
        clients(crowded_server.port, 64) as large_load,  # most of these requests wait for their turn
    ):
        assert server.ask_admin("/readyz")[0] == 200
        wait_until(lambda: server.metric(CONNECTIONS) > 0)
        postgres.stop()
        down_at = time.monotonic()
        wait_until(lambda: server.ask_admin("/readyz")[0] == 503 and server.metric(CONNECTIONS) == 0)
        while time.monotonic() < down_at + OUTAGE_SECONDS:
            assert server.ask_admin("/livez")[0] == 200
            assert server.ask_admin("/readyz")[0] == 503
            assert server.metric(CONNECTIONS) == 0
        start_at = time.monotonic()
        postgres.start()
        up_at = time.monotonic()
        wait_until(lambda: time.monotonic() > up_at + RECOVERY_SECONDS)
        assert server.ask_admin("/readyz")[0] == 200
        wait_until(lambda: server.metric(CONNECTIONS) > 0)
        for load in small_load, large_load:
            load.wait_for(500)
            load.stop()
        assert server.metric(RESPONSES_500) == len(small_load.failed)
        assert server.metric(RETRIES) > len(small_load.failed)
    for load in small_load, large_load:
        assert all(is_error(answer, UNAVAILABLE) for answer in load.failed)
        during_outage = [
            answer
            for answer in load.answers
            if down_at < answer.ended_at - answer.seconds and answer.ended_at < start_at
        ]
        assert {answer.status for answer in during_outage} == {500}
        assert load.slowest <= MAX_DOWN_SECONDS
        assert max(answer.ended_at for answer in load.failed) <= up_at + RECOVERY_SECONDS
