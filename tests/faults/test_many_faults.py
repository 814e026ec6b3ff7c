"""The service uses no more resources after a hundred faults than before."""

import itertools

import pytest
from psycopg2.extensions import make_dsn

from tests.faults.postgres import FAST, IMMEDIATE, KILLED, Postgres
from tests.faults.service import measure_resources, send_at_once, serving

pytestmark = pytest.mark.faults


def test_a_hundred_faults_leak_no_connection_thread_or_descriptor(postgres: Postgres) -> None:
    stop_signals = itertools.cycle([FAST, IMMEDIATE, KILLED])
    with serving(make_dsn(postgres.service_dsn, options="-c statement_timeout=400")) as server:
        before = measure_resources(server, postgres)
        for number in range(100):
            if number % 33 == 1:
                with postgres.frozen_backends():
                    assert 500 in {answer.status for answer in send_at_once(server)}
            elif number % 11 == 2:
                with postgres.locked_table():
                    assert 500 in {answer.status for answer in send_at_once(server)}
            elif number % 10 == 3:
                postgres.stop(next(stop_signals))
                postgres.start()
            else:
                postgres.terminate_backends()
            assert {answer.status for answer in send_at_once(server)} == {200}
        assert measure_resources(server, postgres) == before
