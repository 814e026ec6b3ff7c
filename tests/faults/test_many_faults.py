"""A hundred faults in a row, and nothing of the service is worn out by them."""

import itertools

import pytest
from psycopg2.extensions import make_dsn

from tests.faults.postgres import FAST, IMMEDIATE, KILLED, Postgres, frozen
from tests.faults.service import at_once, resources, serving

pytestmark = pytest.mark.faults


def test_as_many_connections_threads_and_descriptors_as_before(postgres: Postgres) -> None:
    stops = itertools.cycle([FAST, IMMEDIATE, KILLED])
    with serving(make_dsn(postgres.service_dsn, options="-c statement_timeout=400")) as server:
        before = resources(server, postgres)
        for number in range(100):
            if number % 33 == 1:
                with frozen(postgres.sessions):
                    assert 500 in {answer.status for answer in at_once(server)}
            elif number % 11 == 2:
                with postgres.locked():
                    assert 500 in {answer.status for answer in at_once(server)}
            elif number % 10 == 3:
                postgres.stop(next(stops))
                postgres.start()
            else:
                postgres.terminate()
            assert {answer.status for answer in at_once(server)} == {200}
        assert resources(server, postgres) == before
