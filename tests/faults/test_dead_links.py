"""The network between the service and Postgres drops packets without an error."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg2.extensions import make_dsn

from tests.faults.namespaces import Link
from tests.faults.postgres import Postgres
from tests.faults.service import (
    MAX_HANG_SECONDS,
    THREADS,
    TIMED_OUT,
    UNAVAILABLE,
    Resources,
    is_error,
    measure_resources,
    send_at_once,
    serving,
)
from tests.support.processes import Running, wait_until
from tests.support.programs import tool

pytestmark = pytest.mark.faults


@pytest.fixture
def link(postgres: Postgres) -> Iterator[Link]:
    """Yield a link; Postgres listens in its namespace."""
    tool("ip")
    if subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("network namespaces need root, and not every container allows them")
    with Link() as link:
        postgres.stop()
        with (postgres.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {link.own_address}/128 trust\n")
        postgres.start(*link.enter_namespace, listen=link.address)
        yield link
        postgres.stop()


def measure_without_backends(server: Running, postgres: Postgres) -> Resources:
    """Measure without the backends, because Postgres detects a lost client late."""
    return measure_resources(server, postgres)._replace(backends=0)


@pytest.fixture
def server(postgres: Postgres, link: Link) -> Iterator[Running]:
    with serving(make_dsn(postgres.service_dsn, host=link.address)) as server:
        yield server


def test_requests_fail_in_time_if_an_idle_link_dies(postgres: Postgres, link: Link, server: Running) -> None:
    before = measure_without_backends(server, postgres)
    with link.dead():
        for answer in send_at_once(server, 64):
            assert is_error(answer, UNAVAILABLE)
            assert answer.seconds <= MAX_HANG_SECONDS
    assert measure_without_backends(server, postgres) == before


def test_queries_fail_in_time_if_the_link_dies(postgres: Postgres, link: Link, server: Running) -> None:
    before = measure_without_backends(server, postgres)
    with ThreadPoolExecutor(1) as pool, postgres.hanging_queries():
        answers = pool.submit(send_at_once, server)
        wait_until(lambda: len(postgres.waiting_backends) == THREADS)
        # After 0.2 s TCP has acknowledged the queries. Otherwise it would send them again.
        acknowledged_at = time.monotonic() + 0.2
        wait_until(lambda: time.monotonic() > acknowledged_at)
        with link.dead():
            for answer in answers.result():
                assert is_error(answer, UNAVAILABLE, TIMED_OUT)
                assert answer.seconds <= MAX_HANG_SECONDS
    assert measure_without_backends(server, postgres) == before
