"""Patroni changes the leader of two Postgres servers while clients read cases."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.faults.patroni import TTL, Cluster, patroni_cluster
from tests.faults.service import THREADS, UNAVAILABLE, clients, is_error, serving
from tests.support.load import Load
from tests.support.processes import wait_until

pytestmark = pytest.mark.faults

# With target_session_attrs=primary, requests wait while there is no leader: 2.9 s after a crash of Postgres.
WAIT_SECONDS = 10
# From the moment that Patroni permits another leader until that one has answered a request.
PROMOTION_SECONDS = 5


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with patroni_cluster() as cluster:
        yield cluster


@contextmanager
def two_services(cluster: Cluster) -> Iterator[tuple[Load, Load]]:
    """Yield the clients of a service that reads any server, and of one that reads only the leader."""
    dsns = (cluster.service_dsn(), cluster.service_dsn(target_session_attrs="primary"))
    variables = {"MEDMITRA_DATABASE_WAIT_SECONDS": str(WAIT_SECONDS)}
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(dsn, **variables)) for dsn in dsns]
        any_server, leader = (
            stack.enter_context(clients(server.port, THREADS, pause_seconds=0.02)) for server in servers
        )
        yield any_server, leader


def test_switchovers_and_a_crash_of_postgres_fail_no_request(cluster: Cluster) -> None:
    with two_services(cluster) as loads:

        def wait_for_both() -> None:
            for load in loads:
                load.wait_for(100)

        wait_for_both()
        for _ in range(2):
            cluster.switch_over()
            wait_for_both()
        cluster.roles()[0].kill_postgres()
        wait_for_both()
        for load in loads:
            load.stop()
            assert load.failed == []


def test_a_dead_leader_fails_only_requests_that_need_a_leader_until_its_ttl_ends(cluster: Cluster) -> None:
    with two_services(cluster) as (any_server, leader):
        for load in (any_server, leader):
            load.wait_for(100)
        cluster.roles()[0].kill()
        killed_at = time.monotonic()
        any_server.wait_for(500)
        any_server.stop()
        assert any_server.failed == []
        wait_until(lambda: leader.failed)
        wait_until(lambda: leader.answers[-1].status == 200)
        leader.wait_for(100)
        leader.stop()
    assert [answer for answer in leader.failed if not is_error(answer, UNAVAILABLE)] == []
    assert leader.failed[-1].ended_at < killed_at + TTL + PROMOTION_SECONDS
