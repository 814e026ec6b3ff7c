"""The watch: ends connections whose server does not answer, and itself when there are none."""

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from medmitra_cases.database.connection import Connection, connect
from medmitra_cases.database.database import Database
from medmitra_cases.database.watchdog import Watchdog
from medmitra_cases.telemetry import metrics
from tests.support.factories import CasesDatabase, execute
from tests.support.processes import wait_until
from tests.support.proxy import Proxy

# The table's layout has no say in any of this.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)


@pytest.fixture
def proxy(database: CasesDatabase) -> Iterator[Proxy]:
    """A server that can be mute, in front of the real one."""
    with closing(Proxy(database.service_dsn)) as proxy:
        yield proxy


def watches() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "watch"}


def opened() -> float:
    """How many connections there are, as the metrics have it."""
    return metrics.REGISTRY.get_sample_value("medmitra_database_connections_open") or 0.0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ("", 6.5),  # the role's own
        ("-c statement_timeout=100", 1.6),
        ("-c statement_timeout=2min", 121.5),
        ("-c statement_timeout=0", 60),
    ],
)
def test_it_waits_as_long_as_the_server_lets_queries_run(
    database: CasesDatabase, options: str, seconds: float
) -> None:
    url = make_dsn(database.service_dsn, **({"options": options} if options else {}))
    with closing(Watchdog().watch(connect(url))) as connection:
        assert connection.answer_timeout_seconds == pytest.approx(seconds)


def test_it_ends_with_its_last_connection_and_begins_again(database: CasesDatabase) -> None:
    before = watches()
    watchdog = Watchdog()
    assert watches() == before
    for _ in range(2):
        connections = [watchdog.watch(connect(database.service_dsn)) for _ in range(3)]
        assert len(watches() - before) == 1
        assert set(watchdog.connections()) == set(connections)
        for connection in connections:
            connection.close()
        assert watchdog.connections() == []
        wait_until(lambda: watches() <= before)


def test_what_a_thread_leaves_behind_is_closed(database: CasesDatabase) -> None:
    gc.collect()
    threads, connections, files = watches(), opened(), descriptors()
    reader = Database(database.service_dsn, wait_seconds=0)
    with ThreadPoolExecutor(3) as pool:
        barrier = threading.Barrier(3)
        for asked in [pool.submit(reader.read, 0, lambda _: barrier.wait()) for _ in range(3)]:
            asked.result()
        del asked
        assert opened() == connections + 3
    wait_until(lambda: (opened(), descriptors()) == (connections, files))
    wait_until(lambda: watches() <= threads)


def test_it_begins_with_the_next_connection_if_it_could_not(
    database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "watch":
            raise RuntimeError("can't start new thread")
        start(thread)

    before = watches()
    with closing(Database(database.service_dsn, wait_seconds=0)) as reader:
        with monkeypatch.context() as failing:
            failing.setattr(threading.Thread, "start", fail)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                reader.read(0, lambda _: None)
        assert reader.read(0, lambda connection: execute(connection, "SELECT 42")) == [(42,)]
        assert len(watches() - before) == 1


def test_a_query_in_time_is_left_alone(database: CasesDatabase) -> None:
    url = make_dsn(database.service_dsn, options="-c statement_timeout=0")
    with closing(Watchdog().watch(connect(url))) as connection:
        execute(connection, "SELECT pg_sleep(0.6)")  # longer than from one look to the next but one
        assert not connection.cut_off
        assert execute(connection, "SELECT 42") == [(42,)]


def test_a_server_that_falls_silent_right_after_the_login(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "answer_timeout_seconds", 0.1)
    connection = connect(proxy.dsn)
    proxy.forwards.clear()
    with pytest.raises(psycopg2.OperationalError):
        Watchdog().watch(connection)
    assert connection.cut_off
    assert connection.closed


def test_a_long_list_that_falls_silent(proxy: Proxy) -> None:
    url = make_dsn(proxy.dsn, options="-c statement_timeout=100")
    with closing(Watchdog().watch(connect(url))) as connection:
        connection.autocommit = False
        with connection.cursor("numbers") as cursor:
            cursor.execute("SELECT generate_series(1, 100)")
            assert cursor.fetchmany(2) == [(1,), (2,)]
            proxy.forwards.clear()
            with pytest.raises(psycopg2.OperationalError):
                cursor.fetchmany(2)
            assert connection.cut_off
            with pytest.raises(psycopg2.Error):
                connection.rollback()


def test_a_connection_that_is_gone_can_be_cut_off(database: CasesDatabase) -> None:
    connection = connect(database.service_dsn)
    execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
    connection.cut()
    connection.close()
    connection.cut()
    connection.close()
    with pytest.raises(psycopg2.InterfaceError):
        execute(connection, "SELECT 42")


def test_a_connection_that_is_lost_before_it_is_watched(database: CasesDatabase) -> None:
    connections = opened()
    connection = connect(database.service_dsn)
    assert opened() == connections + 1
    execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
    with pytest.raises(psycopg2.OperationalError):
        Watchdog().watch(connection)
    assert opened() == connections
