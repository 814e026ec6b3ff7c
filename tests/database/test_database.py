"""Connections: one per thread, replaced when lost, cut off when mute, found again after an outage."""

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
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient

from medmitra_cases.database.connection import Connection
from medmitra_cases.database.database import Database
from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.errors import DatabaseUnavailable, QueryTimedOut
from medmitra_cases.telemetry import metrics
from medmitra_cases.testing.postgres import new_database
from tests.support import factories
from tests.support.factories import DOCTOR, CasesDatabase, case, client_on, execute
from tests.support.processes import frozen, serve, wait_until
from tests.support.proxy import Proxy

T = TypeVar("T")

ASKED = f"/cases/all_cases?user_id={DOCTOR}"
SESSIONS = "FROM pg_stat_activity WHERE usename = 'medmitra_cases' AND datname = current_database()"


def sessions(database: CasesDatabase) -> int:
    """How many connections the service holds, as Postgres sees it."""
    ((count,),) = execute(database.owner, f"SELECT count(*) {SESSIONS}")
    return int(count)


def read(reader: Database, query: Callable[[Connection], T]) -> T:
    """Read for a request that comes now."""
    return reader.read(time.monotonic(), query)


def backend_pid(connection: Connection) -> int:
    return connection.info.backend_pid


def asked_pid(connection: Connection) -> int:
    """The same, from the server."""
    ((pid,),) = execute(connection, "SELECT pg_backend_pid()")
    return int(pid)


def test_first_request_after_all_backends_were_terminated(
    client: FlaskClient, database: CasesDatabase
) -> None:
    database.add(case())
    before = client.get(ASKED)
    execute(database.owner, f"SELECT pg_terminate_backend(pid, 5000) {SESSIONS}")
    after = client.get(ASKED)
    assert (after.status_code, after.data) == (200, before.data)
    assert sessions(database) == 1


def test_one_connection_per_thread_and_none_after_close(
    app: Flask, service_database: Database, database: CasesDatabase
) -> None:
    threads = 5
    all_in = threading.Barrier(threads)

    def ask() -> list[int]:
        all_in.wait()
        return [app.test_client().get(ASKED).status_code for _ in range(3)]

    with ThreadPoolExecutor(threads) as pool:
        answers = [pool.submit(ask) for _ in range(threads)]
        assert [answer.result() for answer in answers] == [[200] * 3] * threads
        assert sessions(database) == threads
        service_database.close()
        wait_until_sessions(database, 0)


def wait_until_sessions(database: CasesDatabase, count: int) -> None:
    """Postgres notices a closed connection in its own time, within milliseconds."""
    for _ in range(1000):
        if sessions(database) == count:
            return
        execute(database.owner, "SELECT pg_sleep(0.01)")
    assert sessions(database) == count


def test_connections_of_ended_threads_are_closed(app: Flask, database: CasesDatabase) -> None:
    thread = threading.Thread(target=lambda: app.test_client().get(ASKED))
    thread.start()
    thread.join()
    wait_until_sessions(database, 0)


def test_a_read_after_close_opens_again(
    client: FlaskClient, service_database: Database, database: CasesDatabase
) -> None:
    assert client.get(ASKED).status_code == 200
    service_database.close()
    assert client.get(ASKED).status_code == 200
    assert sessions(database) == 1


def test_the_connection_is_kept_from_read_to_read(database: CasesDatabase) -> None:
    with closing(Database(database.service_dsn, wait_seconds=0)) as reader:
        assert read(reader, backend_pid) == read(reader, backend_pid)


def test_no_transaction_is_left_open(client: FlaskClient, database: CasesDatabase) -> None:
    client.get(ASKED)
    assert execute(database.owner, f"SELECT state {SESSIONS}") == [("idle",)]


def test_the_service_names_itself_to_the_database(client: FlaskClient, database: CasesDatabase) -> None:
    client.get(ASKED)
    assert execute(database.owner, f"SELECT application_name {SESSIONS}") == [("medmitra-cases",)]


def test_text_is_unicode_whatever_the_url_says(database: CasesDatabase) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, client_encoding="LATIN1")
    with closing(Database(url, wait_seconds=0)) as reader:
        assert read(reader, lambda connection: execute(connection, "SELECT chr(32654)")) == [("美",)]


def test_a_database_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        reader = Database(f"host=127.0.0.1 port={mute.getsockname()[1]}", wait_seconds=0)
        with pytest.raises(DatabaseUnavailable):
            read(reader, backend_pid)


def test_the_url_has_the_last_word_on_timeouts(database: CasesDatabase) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, connect_timeout=7)
    with closing(Database(url, wait_seconds=0)) as reader:
        parameters = read(reader, lambda connection: connection.info.dsn_parameters)
    assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == ("7", "3000")


def test_text_is_unicode_whatever_the_servers_encoding(server_dsn: str) -> None:
    latin_1 = "TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'"
    with new_database(server_dsn, options=latin_1) as dsn, closing(Database(dsn, wait_seconds=0)) as reader:
        assert read(reader, lambda connection: execute(connection, "SELECT chr(233)")) == [("é",)]


def test_starts_without_a_database_serves_when_it_appears_and_again_after_a_restart(folder: Path) -> None:
    with embedded_postgres(folder) as owner_dsn, closing(psycopg2.connect(owner_dsn)) as owner:
        owner.autocommit = True
        factories.LAYOUTS["own_table"].create(owner)
    url = psycopg2.extensions.make_dsn(owner_dsn, user="medmitra_cases")
    with client_on(url, MEDMITRA_DATABASE_WAIT_SECONDS="0") as client:
        assert client.get(ASKED).status_code == 500
        with embedded_postgres(folder):
            assert client.get(ASKED).status_code == 200
        with embedded_postgres(folder):
            assert client.get(ASKED).status_code == 200
        assert client.get(ASKED).status_code == 500


def test_a_read_waits_for_a_database_that_comes_back(folder: Path) -> None:
    with embedded_postgres(folder) as dsn:
        pass
    reader = Database(dsn, wait_seconds=60)
    with closing(reader), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(read, reader, lambda connection: execute(connection, "SELECT 42"))
        with embedded_postgres(folder):
            assert answer.result() == [(42,)]
            pool.submit(reader.close).result()


def test_a_read_gives_up_after_the_wait() -> None:
    reader = Database("host=127.0.0.1 port=1", wait_seconds=0.3)
    with pytest.raises(DatabaseUnavailable) as raised:
        read(reader, backend_pid)
    assert isinstance(raised.value.__cause__, psycopg2.OperationalError)


def retries() -> float:
    """How many reads have been tried again."""
    return metrics.REGISTRY.get_sample_value("medmitra_database_retries_total") or 0.0


def descriptors() -> set[str]:
    return {str(path) for path in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def proxy(database: CasesDatabase) -> Iterator[Proxy]:
    """A server that can be mute, in front of the real one."""
    with closing(Proxy(database.service_dsn)) as proxy:
        yield proxy


@pytest.mark.parametrize("hosts", [1, 3])
@pytest.mark.parametrize(("wait_seconds", "waited_already"), [(0.2, 0), (60, 59.8)])
def test_a_mute_server_is_given_up_when_the_wait_is_over(
    hosts: int, wait_seconds: float, waited_already: float
) -> None:
    with ExitStack() as stack:
        mute = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(hosts)]
        ports = ",".join(str(server.getsockname()[1]) for server in mute)
        url = f"host={','.join(['127.0.0.1'] * hosts)} port={ports} connect_timeout=60"
        reader = Database(url, wait_seconds=wait_seconds)
        begun = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            reader.read(begun - waited_already, backend_pid)
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
class TestProxied:
    """A server that is mute for a while."""

    def test_a_connection_that_comes_late_is_used_by_the_next_read(
        self, proxy: Proxy, database: CasesDatabase
    ) -> None:
        proxy.forwards.clear()
        with closing(Database(proxy.dsn, wait_seconds=0.3)) as reader:
            for _ in range(2):
                with pytest.raises(DatabaseUnavailable):
                    read(reader, asked_pid)
            proxy.forwards.set()
            wait_until(lambda: sessions(database) == 1)
            ((pid,),) = execute(database.owner, f"SELECT pid {SESSIONS}")
            assert read(reader, asked_pid) == pid
            assert proxy.accepted == 1

    def test_an_old_failure_is_not_taken_for_a_new_one(self, proxy: Proxy) -> None:
        proxy.forwards.clear()
        with closing(Database(proxy.dsn, wait_seconds=0)) as reader:
            with pytest.raises(DatabaseUnavailable):
                read(reader, asked_pid)
            proxy.hang_up()
            wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "connect"])
            proxy.forwards.set()
            assert read(reader, asked_pid)

    def test_a_server_that_falls_silent_is_cut_off(self, proxy: Proxy) -> None:
        url = psycopg2.extensions.make_dsn(proxy.dsn, options="-c statement_timeout=100")
        threads, retried = set(threading.enumerate()), retries()
        with closing(Database(url, wait_seconds=5)) as reader:
            pid = read(reader, asked_pid)
            opened = len(descriptors())
            proxy.forwards.clear()
            begun = time.monotonic()
            with pytest.raises(QueryTimedOut):
                read(reader, lambda connection: execute(connection, "SELECT 1"))
            # Not before the server would have ended it itself; by the default limit it would be 6.5 s.
            assert 0.1 + 1.5 <= time.monotonic() - begun < 5
            assert retries() == retried
            proxy.forwards.set()
            assert read(reader, asked_pid) != pid
            wait_until(lambda: len(descriptors()) == opened)
        wait_until(lambda: set(threading.enumerate()) - threads <= proxy.threads)

    def test_a_connection_cut_off_while_idle_is_replaced(self, proxy: Proxy) -> None:
        with closing(Database(proxy.dsn, wait_seconds=5)) as reader:
            cut: list[Connection] = []
            read(reader, cut.append)
            cut[0].cut()  # its answer came in the very moment in which it was given up
            assert read(reader, asked_pid)


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
def test_a_frozen_backend_is_a_query_that_timed_out(database: CasesDatabase) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, options="-c statement_timeout=100")
    with client_on(url) as client:
        assert client.get(ASKED).status_code == 200
        ((pid,),) = execute(database.owner, f"SELECT pid {SESSIONS}")
        retried = retries()
        with frozen(pid):
            response = client.get(ASKED)
        assert response.status_code == 500
        assert "query timed out" in response.text
        assert retries() == retried
        assert client.get(ASKED).status_code == 200


def test_a_request_past_its_time_gets_one_attempt(database: CasesDatabase) -> None:
    came_at = time.monotonic() - 60
    with closing(Database(database.service_dsn, wait_seconds=1)) as reader:
        pid = reader.read(came_at, asked_pid)
        execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert reader.read(came_at, asked_pid) != pid


def test_a_lost_connection_is_tried_again_once(database: CasesDatabase) -> None:
    retried = retries()
    with closing(Database(database.service_dsn, wait_seconds=0)) as reader:
        pids = [read(reader, asked_pid)]
        execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", pids)

        def select(connection: Connection) -> object:
            pids.append(backend_pid(connection))
            return execute(connection, "SELECT 42")

        assert read(reader, select) == [(42,)]
    assert pids[0] == pids[1] != pids[2]
    assert len(pids) == 3
    assert retries() == retried + 1


def test_a_server_that_is_killed_while_nobody_asks(folder: Path) -> None:
    with closing(Database(f"host={folder}/socket user=postgres", wait_seconds=10)) as reader:
        with embedded_postgres(folder):
            assert read(reader, asked_pid)
            (data,) = folder.glob("data-*")
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            wait_until(lambda: not (data / "postmaster.pid").exists())
        # To libpq such a connection is still a good one after its error.
        with embedded_postgres(folder):
            assert read(reader, asked_pid)


def test_a_query_that_was_long_under_way_is_not_tried_again_past_its_time(database: CasesDatabase) -> None:
    pids = []

    def select(connection: Connection) -> None:
        pids.append(asked_pid(connection))
        execute(connection, "SELECT pg_sleep(0.1)")
        execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", [pids[-1]])
        execute(connection, "SELECT 42")

    with closing(Database(database.service_dsn, wait_seconds=0)) as reader:
        with pytest.raises(DatabaseUnavailable):
            read(reader, select)
        assert len(pids) == 1
        assert read(reader, asked_pid) != pids[0]


@pytest.mark.parametrize("timeout", ["100", "0"])
def test_a_query_that_was_cancelled_is_not_tried_again(database: CasesDatabase, timeout: str) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, options=f"-c statement_timeout={timeout}")
    pids = []
    retried = retries()

    def sleep(connection: Connection) -> None:
        pids.append(backend_pid(connection))
        execute(connection, "SELECT pg_sleep(20)")

    with closing(Database(url, wait_seconds=5)) as reader, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(read, reader, sleep)
        if timeout == "0":  # then we do it
            wait_until(lambda: execute(database.owner, f"SELECT 1 {SESSIONS} AND wait_event = 'PgSleep'"))
            execute(database.owner, "SELECT pg_cancel_backend(%s)", pids)
        with pytest.raises(QueryTimedOut):
            answer.result()
        assert pids == [pool.submit(read, reader, asked_pid).result()]
    assert retries() == retried


@pytest.mark.parametrize("state", ["down", "mute"])
def test_who_waits_for_a_thread_waits_for_the_database_meanwhile(state: str) -> None:
    wait_seconds = 1.0
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        serve(
            f"host=127.0.0.1 port={1 if state == 'down' else mute.getsockname()[1]}",
            MEDMITRA_DATABASE_WAIT_SECONDS=str(wait_seconds),
            MEDMITRA_THREADS="2",
        ) as server,
        ThreadPoolExecutor(40) as pool,
    ):
        begun = time.monotonic()
        answers = [pool.submit(server.get, ASKED) for _ in range(40)]
        assert [answer.result()[0].status for answer in answers] == [500] * 40
        # Two at a time, each waiting anew, would take 20 s.
        assert time.monotonic() - begun < 10


def test_nothing_is_opened_before_the_first_read(database: CasesDatabase) -> None:
    threads, opened = threading.active_count(), descriptors()
    with client_on(database.service_dsn) as client:
        assert client.get("/nowhere").status_code == 404
        assert (threading.active_count(), descriptors()) == (threads, opened)
        assert client.get(ASKED).status_code == 200


def test_a_process_that_forks_after_making_it_can_serve(database: CasesDatabase) -> None:
    program = """
import os, threading, medmitra_cases, medmitra_cases.server.service
app = medmitra_cases.create_app()
assert threading.active_count() == 1
child = os.fork()
assert app.test_client().get(os.environ["ASKED"]).status_code == 200
assert child == 0 or os.waitpid(child, 0)[1] == 0
"""
    environ = {**os.environ, "DATABASE_URL": database.service_dsn, "ASKED": ASKED}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=30, capture_output=True)


def test_the_end_of_the_process_is_the_end_of_its_connections(database: CasesDatabase) -> None:
    admin = {"MEDMITRA_ADMIN_LISTEN": "127.0.0.1:0"}
    with serve(database.service_dsn, **admin) as server:
        assert server.ask_admin("/readyz")[0] == 200
        assert server.get(ASKED)[0].status == 200
        assert sessions(database) == 2
        assert server.end() == 0
        wait_until_sessions(database, 0)
    assert not re.search("Traceback|Exception", server.printed)
