"""Postgres servers die while others, among them standbys that allow reads, go on."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn

from tests.faults.pgbouncer import pgbouncer
from tests.faults.postgres import KILLED, Postgres
from tests.faults.service import MAX_DOWN_SECONDS, TARGET, THREADS, clients, serving
from tests.support.processes import Running, wait_until
from tests.support.programs import AS_NOBODY, free_port

pytestmark = pytest.mark.faults


@contextmanager
def replica(primary: Postgres, address: str, port: int) -> Iterator[Postgres]:
    """Run a server that replicates another one until the block ends."""
    folder = primary.data.parent / f"standby-{address}"
    standby = Postgres(primary.programs, folder / "data", port, listen=address)
    owner = primary.data.stat()
    for path in (folder, standby.data, standby.socket_folder):
        path.mkdir(mode=0o700)
        os.chown(path, owner.st_uid, owner.st_gid)
    base_backup = (*AS_NOBODY, primary.programs / "pg_basebackup", "-d", primary.dsn, "-D", standby.data)
    subprocess.run([*base_backup, "-R", "--checkpoint=fast", "--no-sync"], check=True, cwd="/")
    standby.start()
    try:
        yield standby
    finally:
        if standby.is_running:
            standby.stop()
        shutil.rmtree(folder)


@pytest.fixture
def standby(postgres: Postgres) -> Iterator[Postgres]:
    """Yield a second server, which replicates the first."""
    with replica(postgres, "127.0.0.2", free_port()) as standby:
        yield standby


@pytest.fixture
def standbys(postgres: Postgres) -> Iterator[list[Postgres]]:
    """Yield two servers that replicate a third, on the same port of two addresses."""
    port = free_port()
    with ExitStack() as stack:
        yield [
            stack.enter_context(replica(postgres, address, port)) for address in ("127.0.0.2", "127.0.0.3")
        ]


@pytest.fixture(params=["in the order of DATABASE_URL", "load_balance_hosts=random", "PgBouncer"])
def dsn_of_both(standbys: list[Postgres], folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield a connection string for the service that leads to both standbys."""
    addresses = ",".join(standby.listen for standby in standbys)
    dsn = make_dsn(standbys[0].service_dsn, host=addresses)
    if request.param == "PgBouncer":
        with pgbouncer(folder, dsn, more="default_pool_size = 4\nserver_login_retry = 1") as port:
            yield make_dsn(dsn, host="127.0.0.1", port=port)
    elif request.param == "load_balance_hosts=random":
        yield make_dsn(dsn, load_balance_hosts="random")
    else:
        yield dsn


def test_no_request_fails_when_each_of_two_standbys_is_killed(
    standbys: list[Postgres], dsn_of_both: str
) -> None:
    with serving(dsn_of_both) as server, clients(server.port) as load:
        load.wait_for(200)
        for killed, other in (standbys, standbys[::-1]):
            killed.stop(KILLED)
            load.wait_for(500)
            assert other.backends
            killed.start()
        load.wait_for(200)
        load.stop()
    assert load.failed == []


@pytest.mark.parametrize(("source", "tags"), [("auto", 2), ("body", 1)])
@pytest.mark.parametrize("dsn_of_both", ["load_balance_hosts=random", "PgBouncer"], indirect=True)
def test_two_standbys_have_the_same_tag_only_if_it_is_made_from_the_body(
    postgres: Postgres, standbys: list[Postgres], dsn_of_both: str, source: str, tags: int
) -> None:
    with serving(dsn_of_both, MEDMITRA_ETAG_SOURCE=source) as server:
        found: set[str] = set()
        statuses: set[int] = set()

        # A tag is that of the server that first responded on a connection, so all may be the same by chance.
        def tags_are_found() -> bool:
            found.update(
                response.headers["ETag"] for response in responses_of_both(server, postgres, standbys)
            )
            return len(found) == tags

        def statuses_are_found() -> bool:
            again = responses_of_both(server, postgres, standbys, **{"If-None-Match": min(found)})
            statuses.update(response.status for response in again)
            return statuses == ({304} if tags == 1 else {200, 304})

        wait_until(tags_are_found)
        wait_until(statuses_are_found)


def responses_of_both(
    server: Running, primary: Postgres, standbys: list[Postgres], **headers: str
) -> list[HTTPResponse]:
    """Send requests at the same time, again and again until both standbys have responded to some."""
    lock = "SELECT 1 FROM pg_locks WHERE relation = 'medmitra.cases'::regclass AND mode ~ 'AccessExclusive'"
    responses: list[HTTPResponse] = []

    def both_responded() -> bool:
        with ThreadPoolExecutor(THREADS) as pool:
            with primary.locked_table():
                primary.query("SELECT pg_switch_wal()")  # a lock alone is not sent to the standbys
                wait_until(lambda: all(standby.query(lock) for standby in standbys))
                sent = [pool.submit(server.get, TARGET, **headers) for _ in range(THREADS)]
                wait_until(lambda: sum(len(standby.waiting_backends) for standby in standbys) == THREADS)
                asked = [standby for standby in standbys if standby.waiting_backends]
            responses[:] = [request.result()[0] for request in sent]
        for standby in standbys:
            standby.terminate_backends()
        return len(asked) == len(standbys)

    wait_until(both_responded)
    return responses


def test_the_service_reads_from_the_standby(postgres: Postgres, standby: Postgres) -> None:
    hosts = f"{postgres.socket_folder},{standby.socket_folder}"
    dsn = make_dsn(postgres.service_dsn, host=hosts, port=f"{postgres.port},{standby.port}")
    with serving(dsn) as server, clients(server.port) as load:
        load.wait_for(200)
        assert not standby.backends
        postgres.stop(KILLED)
        recovered_at = time.monotonic() + MAX_DOWN_SECONDS
        wait_until(lambda: time.monotonic() > recovered_at)
        load.wait_for(500)
        assert len(standby.backends) == THREADS
    assert [answer for answer in load.failed if answer.ended_at > recovered_at] == []


def test_conflicts_of_the_standby_with_its_primary_cause_no_error(
    postgres: Postgres, standby: Postgres
) -> None:
    with (standby.data / "postgresql.auto.conf").open("a") as settings:
        settings.write("max_standby_streaming_delay = 0\nhot_standby_feedback = off\n")
    standby.query("SELECT pg_reload_conf()")
    with serving(standby.service_dsn) as server, clients(server.port) as load:
        load.wait_for(100)
        while server.metric("medmitra_database_retries_total") < 10:
            postgres.query("UPDATE medmitra.cases SET status = 'failed'")
            postgres.query("VACUUM medmitra.cases")
            postgres.query("BEGIN; LOCK TABLE medmitra.cases; COMMIT")
        load.wait_for(100)
        load.stop()
    assert load.failed == []
