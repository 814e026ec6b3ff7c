"""Postgres takes a query and does not answer: a lock, a plan gone wrong, a process that stands still."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from psycopg2.extensions import make_dsn

from tests.faults.postgres import Postgres, frozen
from tests.faults.service import CLOSE_SECONDS, THREADS, TIMED_OUT, at_once, is_fault, resources, serving

pytestmark = pytest.mark.faults

# The role's statement_timeout is 5 s; a busy machine may take a little longer.
CANCELLED_SECONDS = 6


def standing_still(postgres: Postgres) -> AbstractContextManager[None]:
    """The processes that work for the service, frozen."""
    return frozen(postgres.sessions)


@pytest.mark.parametrize("fault", [Postgres.locked, Postgres.hanging, standing_still])
def test_no_thread_and_no_connection_is_lost(
    postgres: Postgres, fault: Callable[[Postgres], AbstractContextManager[None]]
) -> None:
    with serving(make_dsn(postgres.service_dsn, options="-c statement_timeout=500")) as server:
        before = resources(server, postgres)
        with fault(postgres):
            for answer in at_once(server):
                assert is_fault(answer, TIMED_OUT)
                assert answer.seconds < CLOSE_SECONDS / 2
        assert resources(server, postgres) == before


def test_the_timeouts_that_hold_by_themselves(postgres: Postgres) -> None:
    with serving(postgres.service_dsn) as server:
        before = resources(server, postgres)
        with postgres.locked(), frozen(postgres.sessions[: THREADS // 2]):
            answers = at_once(server)
        assert all(is_fault(answer, TIMED_OUT) for answer in answers)
        seconds = sorted(answer.seconds for answer in answers)
        assert seconds[THREADS // 2 - 1] <= CANCELLED_SECONDS
        assert seconds[-1] <= CLOSE_SECONDS
        assert resources(server, postgres) == before
