"""The first of two Postgres servers dies; the second has a copy that can be read."""

import os
import subprocess
import time
from collections.abc import Iterator

import pytest
from psycopg2.extensions import make_dsn

from tests.faults.postgres import KILLED, Postgres
from tests.faults.service import GIVEN_UP_SECONDS, THREADS, clients, serving
from tests.support.processes import wait_until
from tests.support.programs import NOBODY

pytestmark = pytest.mark.faults


@pytest.fixture
def standby(postgres: Postgres) -> Iterator[Postgres]:
    """A second server, which follows the first."""
    standby = Postgres(postgres.programs, postgres.data.parent / "standby", postgres.port + 1)
    owner = postgres.data.stat()
    standby.data.mkdir(mode=0o700)
    os.chown(standby.data, owner.st_uid, owner.st_gid)
    copy = (*NOBODY, postgres.programs / "pg_basebackup", "-d", postgres.dsn, "-D", standby.data)
    subprocess.run([*copy, "-R", "--checkpoint=fast", "--no-sync"], check=True, cwd="/")
    standby.start()
    yield standby
    standby.stop()


def test_reads_go_on(postgres: Postgres, standby: Postgres) -> None:
    both = {"host": f"{postgres.sockets},{standby.sockets}", "port": f"{postgres.port},{standby.port}"}
    with serving(make_dsn(postgres.service_dsn, **both)) as server, clients(server.port) as asking:
        asking.wait_for(200)
        assert not standby.sessions
        postgres.stop(KILLED)
        recovered = time.monotonic() + GIVEN_UP_SECONDS
        wait_until(lambda: time.monotonic() > recovered)
        asking.wait_for(500)
        assert len(standby.sessions) == THREADS
    assert [answer for answer in asking.failed if answer.ended_at > recovered] == []
