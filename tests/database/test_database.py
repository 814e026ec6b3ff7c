"""Connections: kept, replaced if lost, cut off on a timeout, reopened after an outage."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TypeVar

import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient

from medmitra_cases.database.connection import Connection
from medmitra_cases.database.database import Database
from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.errors import DatabaseUnavailable, EmbeddedPostgresError, QueryTimedOut
from medmitra_cases.telemetry import metrics
from medmitra_cases.testing.postgres import new_database
from tests.support import factories
from tests.support.factories import DOCTOR, SESSIONS, CasesDatabase, backend_pid, case, client_on, execute
from tests.support.processes import frozen, serve, wait_until
from tests.support.proxy import Proxy

T = TypeVar("T")

TARGET = f"/cases/all_cases?user_id={DOCTOR}"


def read(reader: Database, query: Callable[[Connection], T]) -> T:
    """Read for a request that arrives now."""
    return reader.read(time.monotonic(), query)


def test_a_request_succeeds_after_all_backends_were_terminated(
    client: FlaskClient, database: CasesDatabase
) -> None:
    database.add(case())
    before = client.get(TARGET)
    database.terminate_sessions()
    after = client.get(TARGET)
    assert (after.status_code, after.data) == (200, before.data)
    assert len(database.sessions) == 1


def test_there_are_as_many_connections_as_simultaneous_reads_until_close(
    app: Flask, service_database: Database, database: CasesDatabase
) -> None:
    threads = 5

    def send_request(_: int) -> int:
        return app.test_client().get(TARGET).status_code

    with ThreadPoolExecutor(threads) as pool:
        with database.locked() as writer:
            statuses = [pool.submit(send_request, number) for number in range(threads)]
            wait_until(lambda: len(database.waiting) == threads)
            writer.rollback()
        assert [future.result() for future in statuses] == [200] * threads
        assert list(pool.map(send_request, range(3 * threads))) == [200] * 3 * threads
        assert len(database.sessions) == threads
        service_database.close()
        wait_until_sessions(database, 0)


def wait_until_sessions(database: CasesDatabase, count: int) -> None:
    """Wait for this number of sessions: Postgres notices a closed connection some milliseconds later."""
    for _ in range(1000):
        if len(database.sessions) == count:
            return
        execute(database.owner, "SELECT pg_sleep(0.01)")
    assert len(database.sessions) == count


def test_threads_that_end_leave_their_connection_to_others(app: Flask, database: CasesDatabase) -> None:
    for _ in range(3):
        thread = threading.Thread(target=lambda: app.test_client().get(TARGET))
        thread.start()
        thread.join()
    assert len(database.sessions) == 1


def test_a_read_after_close_reconnects(
    client: FlaskClient, service_database: Database, database: CasesDatabase
) -> None:
    assert client.get(TARGET).status_code == 200
    service_database.close()
    assert client.get(TARGET).status_code == 200
    assert len(database.sessions) == 1


def test_reads_reuse_the_connection(database: CasesDatabase) -> None:
    with closing(Database(database.service_dsn, wait_seconds=0)) as reader:
        assert read(reader, backend_pid) == read(reader, backend_pid)


def test_a_request_leaves_no_open_transaction(client: FlaskClient, database: CasesDatabase) -> None:
    client.get(TARGET)
    assert execute(database.owner, f"SELECT state {SESSIONS}") == [("idle",)]


def test_connections_have_the_services_application_name(client: FlaskClient, database: CasesDatabase) -> None:
    client.get(TARGET)
    assert execute(database.owner, f"SELECT application_name {SESSIONS}") == [("medmitra-cases",)]


def test_the_url_cannot_change_the_client_encoding(database: CasesDatabase) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, client_encoding="LATIN1")
    with closing(Database(url, wait_seconds=0)) as reader:
        assert read(reader, lambda connection: execute(connection, "SELECT chr(32654)")) == [("美",)]


def test_a_read_fails_if_the_database_does_not_respond() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reader = Database(f"host=127.0.0.1 port={silent.getsockname()[1]}", wait_seconds=0)
        with pytest.raises(DatabaseUnavailable):
            read(reader, backend_pid)


def test_the_url_overrides_the_default_timeouts(database: CasesDatabase) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, connect_timeout=7)
    with closing(Database(url, wait_seconds=0)) as reader:
        parameters = read(reader, lambda connection: connection.info.dsn_parameters)
    assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == ("7", "3000")


def test_text_is_unicode_with_every_server_encoding(server_dsn: str) -> None:
    latin_1 = "TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'"
    with new_database(server_dsn, options=latin_1) as dsn, closing(Database(dsn, wait_seconds=0)) as reader:
        assert read(reader, lambda connection: execute(connection, "SELECT chr(233)")) == [("é",)]


def test_the_service_recovers_when_the_database_starts_and_restarts(folder: Path) -> None:
    with embedded_postgres(folder) as owner_dsn, closing(psycopg2.connect(owner_dsn)) as owner:
        owner.autocommit = True
        factories.LAYOUTS["own_table"].create(owner)
    url = psycopg2.extensions.make_dsn(owner_dsn, user="medmitra_cases")
    with client_on(url, MEDMITRA_DATABASE_WAIT_SECONDS="0") as client:
        assert client.get(TARGET).status_code == 500
        with embedded_postgres(folder):
            assert client.get(TARGET).status_code == 200
        with embedded_postgres(folder):
            assert client.get(TARGET).status_code == 200
        assert client.get(TARGET).status_code == 500


def test_a_read_waits_until_the_database_starts(folder: Path) -> None:
    with embedded_postgres(folder) as dsn:
        pass
    reader = Database(dsn, wait_seconds=60)
    with closing(reader), ThreadPoolExecutor(1) as pool:
        future = pool.submit(read, reader, lambda connection: execute(connection, "SELECT 42"))
        with embedded_postgres(folder):
            assert future.result() == [(42,)]
            pool.submit(reader.close).result()


def test_a_read_fails_after_the_wait() -> None:
    reader = Database("host=127.0.0.1 port=1", wait_seconds=0.3)
    with pytest.raises(DatabaseUnavailable) as raised:
        read(reader, backend_pid)
    assert isinstance(raised.value.__cause__, psycopg2.OperationalError)


def retries() -> float:
    """Return the number of retried reads in the metrics."""
    return metrics.REGISTRY.get_sample_value("medmitra_database_retries_total") or 0.0


def descriptors() -> set[str]:
    return {str(path) for path in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def proxy(database: CasesDatabase) -> Iterator[Proxy]:
    """Run a proxy in front of the real server. It can stop forwarding data."""
    with closing(Proxy(database.service_dsn)) as proxy:
        yield proxy


@pytest.mark.parametrize("hosts", [1, 3])
@pytest.mark.parametrize(("wait_seconds", "waited_before"), [(0.2, 0), (60, 59.8)])
def test_a_read_from_silent_servers_fails_after_the_wait(
    hosts: int, wait_seconds: float, waited_before: float
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(hosts)]
        ports = ",".join(str(server.getsockname()[1]) for server in servers)
        url = f"host={','.join(['127.0.0.1'] * hosts)} port={ports} connect_timeout=60"
        reader = Database(url, wait_seconds=wait_seconds)
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            reader.read(started - waited_before, backend_pid)
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
class TestProxied:
    """A server that does not respond for a while."""

    def test_the_next_read_uses_a_late_connection(self, proxy: Proxy, database: CasesDatabase) -> None:
        proxy.forwards.clear()
        with closing(Database(proxy.dsn, wait_seconds=0.3)) as reader:
            for _ in range(2):
                with pytest.raises(DatabaseUnavailable):
                    read(reader, backend_pid)
            proxy.forwards.set()
            wait_until(lambda: len(database.sessions) == 1)
            (pid,) = database.sessions
            assert read(reader, backend_pid) == pid
            assert proxy.accepted == 1

    def test_a_read_ignores_an_old_connection_failure(self, proxy: Proxy) -> None:
        proxy.forwards.clear()
        with closing(Database(proxy.dsn, wait_seconds=0)) as reader:
            with pytest.raises(DatabaseUnavailable):
                read(reader, backend_pid)
            proxy.hang_up()
            wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "connect"])
            proxy.forwards.set()
            assert read(reader, backend_pid)

    def test_a_server_that_stops_responding_is_cut_off(self, proxy: Proxy) -> None:
        url = psycopg2.extensions.make_dsn(proxy.dsn, options="-c statement_timeout=100")
        threads, retries_before = set(threading.enumerate()), retries()
        with closing(Database(url, wait_seconds=5)) as reader:
            pid = read(reader, backend_pid)
            open_before = len(descriptors())
            proxy.forwards.clear()
            started = time.monotonic()
            with pytest.raises(QueryTimedOut):
                read(reader, lambda connection: execute(connection, "SELECT 1"))
            # Not before the server's own timeout and the margin. With the default timeout it would be 6.5 s.
            assert 0.1 + 1.5 <= time.monotonic() - started < 5
            assert retries() == retries_before
            proxy.forwards.set()
            assert read(reader, backend_pid) != pid
            wait_until(lambda: len(descriptors()) == open_before)
        wait_until(lambda: set(threading.enumerate()) - threads <= proxy.threads)

    def test_a_connection_cut_off_while_idle_is_replaced(self, proxy: Proxy) -> None:
        with closing(Database(proxy.dsn, wait_seconds=5)) as reader:
            cut: list[Connection] = []
            read(reader, cut.append)
            cut[0].cut()  # as if the response came at the very moment of the timeout
            assert read(reader, backend_pid)


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
def test_a_frozen_backend_causes_a_query_timeout(database: CasesDatabase) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, options="-c statement_timeout=100")
    with client_on(url) as client:
        assert client.get(TARGET).status_code == 200
        (pid,) = database.sessions
        retries_before = retries()
        with frozen(pid):
            response = client.get(TARGET)
        assert response.status_code == 500
        assert "query timed out" in response.text
        assert retries() == retries_before
        assert client.get(TARGET).status_code == 200


def test_a_request_past_its_deadline_gets_one_attempt(database: CasesDatabase) -> None:
    arrived_at = time.monotonic() - 60
    with closing(Database(database.service_dsn, wait_seconds=1)) as reader:
        pid = reader.read(arrived_at, backend_pid)
        execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert reader.read(arrived_at, backend_pid) != pid


def test_a_read_that_lost_its_connection_is_retried_once(database: CasesDatabase) -> None:
    retries_before = retries()
    with closing(Database(database.service_dsn, wait_seconds=30)) as reader:
        pids: list[int] = []

        def select(connection: Connection) -> object:
            pids.append(backend_pid(connection))
            if len(pids) == 1:
                execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", pids)
            return execute(connection, "SELECT 42")

        assert read(reader, select) == [(42,)]
    assert pids[0] != pids[1]
    assert len(pids) == 2
    assert retries() == retries_before + 1


def test_a_read_succeeds_after_an_idle_server_was_killed(folder: Path) -> None:
    with closing(Database(f"host={folder}/socket user=postgres", wait_seconds=10)) as reader:
        with suppress(EmbeddedPostgresError), embedded_postgres(folder):  # it reports the end
            assert read(reader, backend_pid)
            (data,) = folder.glob("data-*")
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            wait_until(lambda: not (data / "postmaster.pid").exists())
        # libpq reports such a connection as good even after its error.
        with embedded_postgres(folder):
            assert read(reader, backend_pid)


def test_a_query_that_fails_past_the_deadline_is_not_retried(database: CasesDatabase) -> None:
    pids = []

    def select(connection: Connection) -> None:
        pids.append(backend_pid(connection))
        execute(connection, "SELECT pg_sleep(0.1)")
        execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", [pids[-1]])
        execute(connection, "SELECT 42")

    with closing(Database(database.service_dsn, wait_seconds=0)) as reader:
        with pytest.raises(DatabaseUnavailable):
            read(reader, select)
        assert len(pids) == 1
        assert read(reader, backend_pid) != pids[0]


@pytest.mark.parametrize("timeout", ["100", "0"])
def test_a_cancelled_query_is_not_retried(database: CasesDatabase, timeout: str) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, options=f"-c statement_timeout={timeout}")
    pids = []
    retries_before = retries()

    def sleep(connection: Connection) -> None:
        pids.append(backend_pid(connection))
        execute(connection, "SELECT pg_sleep(20)")

    with closing(Database(url, wait_seconds=5)) as reader, ThreadPoolExecutor(1) as pool:
        future = pool.submit(read, reader, sleep)
        if timeout == "0":  # then the test cancels it
            wait_until(lambda: execute(database.owner, f"SELECT 1 {SESSIONS} AND wait_event = 'PgSleep'"))
            execute(database.owner, "SELECT pg_cancel_backend(%s)", pids)
        with pytest.raises(QueryTimedOut):
            future.result()
        assert pids == [pool.submit(read, reader, backend_pid).result()]
    assert retries() == retries_before


@pytest.mark.parametrize("state", ["down", "silent"])
def test_the_wait_for_its_turn_counts_as_wait_for_the_database(state: str) -> None:
    wait_seconds = 1.0
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serve(
            f"host=127.0.0.1 port={1 if state == 'down' else silent.getsockname()[1]}",
            MEDMITRA_DATABASE_WAIT_SECONDS=str(wait_seconds),
            MEDMITRA_THREADS="2",
        ) as server,
        ThreadPoolExecutor(40) as pool,
    ):
        started = time.monotonic()
        responses = [pool.submit(server.get, TARGET) for _ in range(40)]
        assert [response.result()[0].status for response in responses] == [500] * 40
        # 20 pairs of requests would take 20 s if each pair waited a second for the database.
        assert time.monotonic() - started < 10


def test_the_service_opens_nothing_before_the_first_read(database: CasesDatabase) -> None:
    threads, open_before = set(threading.enumerate()), descriptors()
    with client_on(database.service_dsn) as client:
        assert client.get("/nowhere").status_code == 404
        # Threads and descriptors of earlier tests may end meanwhile.
        assert set(threading.enumerate()) <= threads
        assert descriptors() <= open_before
        assert client.get(TARGET).status_code == 200


def test_both_processes_can_serve_after_a_fork(database: CasesDatabase) -> None:
    program = """
import os, threading, medmitra_cases, medmitra_cases.server.service
app = medmitra_cases.create_app()
assert threading.active_count() == 1
child = os.fork()
assert app.test_client().get(os.environ["TARGET"]).status_code == 200
assert child == 0 or os.waitpid(child, 0)[1] == 0
"""
    environ = {**os.environ, "DATABASE_URL": database.service_dsn, "TARGET": TARGET}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=30, capture_output=True)


def test_the_process_closes_its_connections_when_it_ends(database: CasesDatabase) -> None:
    admin = {"MEDMITRA_ADMIN_LISTEN": "127.0.0.1:0"}
    with serve(database.service_dsn, **admin) as server:
        assert server.ask_admin("/readyz")[0] == 200
        assert server.get(TARGET)[0].status == 200
        assert len(database.sessions) == 1
        assert server.end() == 0
        wait_until_sessions(database, 0)
    assert not re.search("Traceback|Exception", server.printed)
