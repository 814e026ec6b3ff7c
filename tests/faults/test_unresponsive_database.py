"""Postgres accepts a query and does not respond: a lock, a slow plan, a frozen backend."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from psycopg2.extensions import make_dsn

from tests.faults.postgres import Postgres
from tests.faults.service import (
    MAX_HANG_SECONDS,
    THREADS,
    TIMED_OUT,
    is_error,
    measure_resources,
    send_at_once,
    serving,
)

pytestmark = pytest.mark.faults

# The role's statement_timeout is 5 s; a busy machine may take a little longer.
MAX_CANCEL_SECONDS = 6


@pytest.mark.parametrize("fault", [Postgres.locked_table, Postgres.hanging_queries, Postgres.frozen_backends])
def test_a_hanging_query_loses_no_place_and_no_connection(
    postgres: Postgres, fault: Callable[[Postgres], AbstractContextManager[None]]
) -> None:
    with serving(make_dsn(postgres.service_dsn, options="-c statement_timeout=500")) as server:
        before = measure_resources(server, postgres)
        with fault(postgres):
            for answer in send_at_once(server):
                assert is_error(answer, TIMED_OUT)
                assert answer.seconds < MAX_HANG_SECONDS / 2
        assert measure_resources(server, postgres) == before


def test_the_default_timeouts_end_every_request(postgres: Postgres) -> None:
    with serving(postgres.service_dsn) as server:
        before = measure_resources(server, postgres)
        with postgres.locked_table(), postgres.frozen_backends(THREADS // 2):
            answers = send_at_once(server)
        assert all(is_error(answer, TIMED_OUT) for answer in answers)
        seconds = sorted(answer.seconds for answer in answers)
        assert seconds[THREADS // 2 - 1] <= MAX_CANCEL_SECONDS
        assert seconds[-1] <= MAX_HANG_SECONDS
        assert measure_resources(server, postgres) == before
