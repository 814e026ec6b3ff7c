"""Reads that get an error: which are repeated, how often, and which error the client gets."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import cursor as PsycopgCursor
from psycopg2.extensions import make_dsn

from medmitra_cases.admin import Readiness
from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.statements import BoundQuery
from medmitra_cases.database.connection import Connection
from medmitra_cases.database.database import Database
from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.errors import DatabaseError, DatabaseUnavailable, QueryTimedOut
from medmitra_cases.models import CaseQuery
from tests.support.factories import DOCTOR, CasesDatabase, client_on, execute
from tests.support.processes import wait_until

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

TARGET = f"/cases/all_cases?user_id={DOCTOR}"


def fail(connection: Connection, sqlstate: str) -> None:
    """Run a statement for which the server reports an error."""
    execute(connection, f"DO $$ BEGIN RAISE EXCEPTION 'of a test' USING ERRCODE = '{sqlstate}'; END $$")


def failing(sqlstate: str, times: int) -> tuple[Callable[[Connection], str], list[int]]:
    """Return a read that fails so many times, and a list of the sessions that ran it."""
    runs: list[int] = []

    def query(connection: Connection) -> str:
        runs.append(connection.info.backend_pid)
        if len(runs) <= times:
            fail(connection, sqlstate)
        return "done"

    return query, runs


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "40003"])
def test_a_read_is_repeated_up_to_three_times_after_conflicts(database: CasesDatabase, sqlstate: str) -> None:
    with closing(Database(database.service_dsn, wait_seconds=30)) as reader:
        query, runs = failing(sqlstate, 3)
        assert reader.read(time.monotonic(), query) == "done"
        assert len(runs) == 4
        assert len(set(runs)) == 1  # the session has not ended
        query, runs = failing(sqlstate, 10)
        with pytest.raises(DatabaseError):
            reader.read(time.monotonic(), query)
        assert len(runs) == 4


def test_a_read_is_not_repeated_after_a_conflict_if_the_time_of_its_request_is_over(
    database: CasesDatabase,
) -> None:
    with closing(Database(database.service_dsn, wait_seconds=3)) as reader:
        query, runs = failing("40001", 1)
        with pytest.raises(DatabaseError):
            reader.read(time.monotonic() - 60, query)
        assert len(runs) == 1


@pytest.mark.parametrize(
    ("sqlstate", "error"),
    [
        *((sqlstate, DatabaseUnavailable) for sqlstate in ("08000", "08001", "08006", "08P01")),
        *((sqlstate, DatabaseUnavailable) for sqlstate in ("HV000", "HV00N", "57P01", "57P02", "57P03")),
        ("53300", DatabaseUnavailable),
        *((sqlstate, QueryTimedOut) for sqlstate in ("57014", "55P03", "25P03", "25P04")),
        *((sqlstate, DatabaseError) for sqlstate in ("42P01", "53100", "55000", "XX000", "57000")),
    ],
)
def test_each_error_of_the_server_has_its_public_text(
    database: CasesDatabase, sqlstate: str, error: type[DatabaseError]
) -> None:
    with closing(Database(database.service_dsn, wait_seconds=3)) as reader:
        query, runs = failing(sqlstate, 10)
        with pytest.raises(DatabaseError) as raised:
            reader.read(time.monotonic(), query)
        assert raised.type is error
        assert len(runs) == 1


def test_a_lock_timeout_is_a_query_timeout(database: CasesDatabase) -> None:
    url = make_dsn(database.service_dsn, options="-c lock_timeout=50")
    with client_on(url) as client, database.locked():
        response = client.get(TARGET)
    assert response.status_code == 500
    assert "query timed out" in response.text


def test_a_statement_that_ends_its_own_session_runs_twice(database: CasesDatabase) -> None:
    runs: list[int] = []

    def query(connection: Connection) -> None:
        runs.append(connection.info.backend_pid)
        execute(connection, "SELECT pg_terminate_backend(pg_backend_pid())")

    with closing(Database(database.service_dsn, wait_seconds=30)) as reader:
        for _ in range(3):
            runs.clear()
            with pytest.raises(DatabaseUnavailable):
                reader.read(time.monotonic(), query)
            assert len(runs) == 2


def test_a_statement_that_crashes_its_server_process_runs_twice(
    folder: Path, layout_database: CasesDatabase
) -> None:
    del layout_database
    runs: list[int] = []

    def query(connection: Connection) -> None:
        runs.append(connection.info.backend_pid)
        # As the kernel does if memory is short. All other sessions end, too.
        threading.Timer(0.2, os.kill, [connection.info.backend_pid, signal.SIGKILL]).start()
        execute(connection, "SELECT pg_sleep(60)")

    with embedded_postgres(folder) as dsn, closing(Database(dsn, wait_seconds=30)) as reader:
        with pytest.raises(DatabaseUnavailable):
            reader.read(time.monotonic(), query)
        assert len(runs) == 2
        wait_until(lambda: reads(reader))


def reads(reader: Database) -> bool:
    """Return whether a read succeeds now."""
    with suppress(DatabaseError):
        return reader.read(time.monotonic(), lambda connection: execute(connection, "SELECT 1")) == [(1,)]
    return False


def test_dead_connections_do_not_count_as_runs(database: CasesDatabase) -> None:
    """After a restart all idle connections are dead."""
    with closing(Database(database.service_dsn, wait_seconds=0)) as reader:
        for _ in range(3):
            reader.read(time.monotonic(), lambda connection: execute(connection, "SELECT 1"))
            database.terminate_sessions()
            wait_until(lambda: not database.sessions)
            # Even if the time of the request is over.
            assert reader.read(0, lambda connection: execute(connection, "SELECT 2")) == [(2,)]


@pytest.mark.parametrize("since", [0.0, math.inf])
def test_a_read_that_loses_every_connection_is_given_up(database: CasesDatabase, since: float) -> None:
    runs: list[int] = []

    def query(connection: Connection) -> object:
        runs.append(connection.info.backend_pid)
        execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        wait_until(lambda: connection.is_closed_by_peer)
        return execute(connection, "SELECT 1")

    with closing(Database(database.service_dsn, wait_seconds=0.5)) as reader:
        assert reads(reader)
        with pytest.raises(DatabaseUnavailable):
            reader.read(min(since, time.monotonic()), query)
        assert len(runs) == (2 if since else 1)


@pytest.mark.parametrize(
    ("limit", "applied"), [("0", "5s"), ("2min", "5s"), ("5001", "5s"), ("5s", "5s"), ("300", "300ms")]
)
def test_no_statement_may_run_longer_than_5_s(database: CasesDatabase, limit: str, applied: str) -> None:
    url = make_dsn(database.service_dsn, options=f"-c statement_timeout={limit}")
    with closing(Database(url, wait_seconds=3)) as reader:

        def query(connection: Connection) -> object:
            return execute(connection, "SHOW statement_timeout")

        assert reader.read(time.monotonic(), query) == [(applied,)]
        # In a long list the limit holds for each FETCH: it is set for the transaction.
        bound = BoundQuery(CaseQuery(DOCTOR), DOCTOR, row_versions=True)
        batches = reader.read(time.monotonic(), CaseBatches, bound, 10)
        with PsycopgCursor(batches._connection) as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchall() == [(applied,)]
        batches.close()


def test_a_role_without_limit_leaves_no_session_in_the_queue_of_a_lock(database: CasesDatabase) -> None:
    url = make_dsn(database.service_dsn, options="-c statement_timeout=0")
    with client_on(url) as client, database.locked():
        response = client.get(TARGET)
        assert response.status_code == 500
        assert "query timed out" in response.text
        assert database.waiting == []
    with client_on(url) as client:
        assert client.get(TARGET).status_code == 200


def test_readiness_without_limit_leaves_no_session_in_the_queue_of_a_lock(database: CasesDatabase) -> None:
    url = make_dsn(database.service_dsn, options="-c statement_timeout=0")
    with closing(Database(url, wait_seconds=3)) as reader:
        readiness = Readiness(reader, row_versions=True)
        assert readiness.problem() is None
        with database.locked():
            assert readiness.problem() is not None
            assert len(database.waiting) == 1
            wait_until(lambda: database.waiting == [])
        wait_until(lambda: readiness.problem() is None)


def test_the_server_of_a_pooler_may_refuse_in_the_middle_of_a_session(database: CasesDatabase) -> None:
    """As PgBouncer, which reports what happens to its own connections."""
    with closing(Database(database.service_dsn, wait_seconds=3)) as reader:
        query, _ = failing("08P01", 1)
        with pytest.raises(DatabaseUnavailable) as raised:
            reader.read(time.monotonic(), query)
        assert isinstance(raised.value.__cause__, psycopg2.Error)
        assert reader.read(time.monotonic(), query) == "done"
