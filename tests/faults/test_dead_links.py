"""The network between the service and Postgres drops everything, silently."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg2.extensions import make_dsn

from tests.faults.namespaces import Link
from tests.faults.postgres import Postgres
from tests.faults.service import (
    CLOSE_SECONDS,
    THREADS,
    TIMED_OUT,
    UNAVAILABLE,
    Resources,
    at_once,
    is_fault,
    resources,
    serving,
)
from tests.support.processes import Running, wait_until
from tests.support.programs import tool

pytestmark = pytest.mark.faults


@pytest.fixture
def distant(postgres: Postgres) -> Iterator[Link]:
    """A link at whose other end Postgres listens."""
    tool("ip")
    if subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("only root makes network namespaces, and not in every container")
    with Link() as made:
        postgres.stop()
        with (postgres.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {made.own_address}/128 trust\n")
        postgres.start(*made.within, listen=made.address)
        yield made
        postgres.stop()


def held(server: Running, postgres: Postgres) -> Resources:
    """What the service holds; Postgres takes a while to notice which of its clients are gone."""
    return resources(server, postgres)._replace(sessions=0)


@pytest.fixture
def server(postgres: Postgres, distant: Link) -> Iterator[Running]:
    with serving(make_dsn(postgres.service_dsn, host=distant.address)) as server:
        yield server


def test_dead_while_nothing_is_asked(postgres: Postgres, distant: Link, server: Running) -> None:
    before = held(server, postgres)
    with distant.dead():
        for answer in at_once(server, 64):
            assert is_fault(answer, UNAVAILABLE)
            assert answer.seconds <= CLOSE_SECONDS
    assert held(server, postgres) == before


def test_dead_while_an_answer_is_waited_for(postgres: Postgres, distant: Link, server: Running) -> None:
    before = held(server, postgres)
    with ThreadPoolExecutor(1) as pool, postgres.hanging():
        answers = pool.submit(at_once, server)
        wait_until(lambda: len(postgres.waiting) == THREADS)
        acknowledged = time.monotonic() + 0.2  # by TCP; what is not yet would be sent again
        wait_until(lambda: time.monotonic() > acknowledged)
        with distant.dead():
            for answer in answers.result():
                assert is_fault(answer, UNAVAILABLE, TIMED_OUT)
                assert answer.seconds <= CLOSE_SECONDS
    assert held(server, postgres) == before
