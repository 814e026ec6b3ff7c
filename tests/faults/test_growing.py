"""The table is replaced by a partitioned one while clients read cases and a writer changes them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest

from medmitra_cases.database.sql_files import read_sql
from tests.faults.postgres import Postgres, postgres_with_cases
from tests.faults.service import clients, has_all_cases, send_at_once, serving
from tests.support.factories import execute
from tests.support.processes import wait_until

pytestmark = pytest.mark.faults

WAITING = "SELECT mode FROM pg_locks WHERE NOT granted AND relation = 'medmitra.cases'::regclass"


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """Yield a server of its own, because the table stays partitioned."""
    with postgres_with_cases() as server:
        yield server


def test_no_request_fails_while_the_table_is_partitioned(postgres: Postgres) -> None:
    written: list[int] = []
    stopping = threading.Event()

    def write() -> None:
        with closing(psycopg2.connect(postgres.dsn)) as connection:
            connection.autocommit = True
            while not stopping.is_set():
                number = len(written) + 1
                execute(connection, "UPDATE medmitra.cases SET patient_age = %s", [number])
                written.append(number)

    with (
        serving(postgres.service_dsn) as server,
        clients(server.port) as load,
        closing(psycopg2.connect(postgres.dsn)) as reader,
        ThreadPoolExecutor(2) as pool,
    ):
        writer = pool.submit(write)
        load.wait_for(200)
        # A transaction that has read the table delays the replacement, but not the other clients.
        execute(reader, "SELECT count(*) FROM medmitra.cases")
        partitioning = pool.submit(postgres.query, read_sql("partitioned"))
        wait_until(lambda: ("AccessExclusiveLock",) in postgres.query(WAITING))
        wait_until(lambda: ("AccessExclusiveLock",) not in postgres.query(WAITING))  # it gave up, and waits
        load.wait_for(200)
        assert not partitioning.done()
        reader.rollback()
        partitioning.result()
        seen = len(written)
        load.wait_for(200)
        wait_until(lambda: len(written) > seen + 10)
        stopping.set()
        writer.result()
        load.stop()
        assert all(map(has_all_cases, send_at_once(server)))
    assert load.failed == []
    assert postgres.query("SELECT relkind FROM pg_class WHERE oid = 'medmitra.cases'::regclass") == [("p",)]
    assert postgres.query("SELECT DISTINCT patient_age FROM medmitra.cases") == [(written[-1],)]
