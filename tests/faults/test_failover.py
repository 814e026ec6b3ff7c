"""The first of two Postgres servers dies; the second is a standby that allows reads."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
from psycopg2.extensions import make_dsn

from tests.faults.postgres import KILLED, Postgres
from tests.faults.service import MAX_DOWN_SECONDS, THREADS, clients, serving
from tests.support.processes import wait_until
from tests.support.programs import AS_NOBODY

pytestmark = pytest.mark.faults


@pytest.fixture
def standby(postgres: Postgres) -> Iterator[Postgres]:
    """Yield a second server, which replicates the first."""
    standby = Postgres(postgres.programs, postgres.data.parent / "standby", postgres.port + 1)
    owner = postgres.data.stat()
    standby.data.mkdir(mode=0o700)
    os.chown(standby.data, owner.st_uid, owner.st_gid)
    base_backup = (*AS_NOBODY, postgres.programs / "pg_basebackup", "-d", postgres.dsn, "-D", standby.data)
    subprocess.run([*base_backup, "-R", "--checkpoint=fast", "--no-sync"], check=True, cwd="/")
    standby.start()
    yield standby
    standby.stop()
    shutil.rmtree(standby.data)


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
