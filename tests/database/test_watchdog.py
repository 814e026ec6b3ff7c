"""The watchdog cuts off connections without a response. Its thread ends after the last connection."""

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from medmitra_cases.database.connection import connect
from medmitra_cases.database.database import Database
from medmitra_cases.database.watchdog import Watchdog
from medmitra_cases.telemetry import metrics
from tests.support.factories import CasesDatabase, execute
from tests.support.processes import wait_until
from tests.support.proxy import Proxy

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)


@pytest.fixture
def proxy(database: CasesDatabase) -> Iterator[Proxy]:
    """Run a proxy in front of the real server. It can stop forwarding data."""
    with closing(Proxy(database.service_dsn)) as proxy:
        yield proxy


def watchdog_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "watch"}


def open_connections() -> float:
    """Return the number of open connections in the metrics."""
    return metrics.REGISTRY.get_sample_value("medmitra_database_connections_open") or 0.0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ("", 6.5),  # the role's statement_timeout
        ("-c statement_timeout=100", 1.6),
        ("-c statement_timeout=5s", 6.5),
        # The service sets the limit itself.
        ("-c statement_timeout=5001", 6.5),
        ("-c statement_timeout=2min", 6.5),
        ("-c statement_timeout=0", 6.5),
    ],
)
def test_the_timeout_depends_on_the_servers_statement_timeout(
    database: CasesDatabase, options: str, seconds: float
) -> None:
    url = make_dsn(database.service_dsn, **({"options": options} if options else {}))
    with closing(Watchdog().watch(connect(url))) as connection:
        assert connection.answer_timeout_seconds == pytest.approx(seconds)


def test_the_thread_ends_with_the_last_connection_and_restarts(database: CasesDatabase) -> None:
    before = watchdog_threads()
    watchdog = Watchdog()
    assert watchdog_threads() == before
    for _ in range(2):
        connections = [watchdog.watch(connect(database.service_dsn)) for _ in range(3)]
        assert len(watchdog_threads() - before) == 1
        assert set(watchdog.connections()) == set(connections)
        for connection in connections:
            connection.close()
        assert watchdog.connections() == []
        wait_until(lambda: watchdog_threads() <= before)


def test_connections_of_a_dropped_database_are_closed(database: CasesDatabase) -> None:
    gc.collect()
    threads, connections, files = watchdog_threads(), open_connections(), descriptors()
    reader = Database(database.service_dsn, wait_seconds=0)
    with ThreadPoolExecutor(3) as pool:
        barrier = threading.Barrier(3)
        for future in [pool.submit(reader.read, 0, lambda _: barrier.wait()) for _ in range(3)]:
            future.result()
        del future
        assert open_connections() == connections + 3
    del reader
    wait_until(lambda: (open_connections(), descriptors()) == (connections, files))
    wait_until(lambda: watchdog_threads() <= threads)


def test_the_thread_starts_later_if_the_first_start_failed(
    database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "watch":
            raise RuntimeError("can't start new thread")
        start(thread)

    before = watchdog_threads()
    with closing(Database(database.service_dsn, wait_seconds=0)) as reader:
        with monkeypatch.context() as failing:
            failing.setattr(threading.Thread, "start", fail)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                reader.read(0, lambda _: None)
        assert reader.read(0, lambda connection: execute(connection, "SELECT 42")) == [(42,)]
        assert len(watchdog_threads() - before) == 1


def test_a_query_within_the_timeout_is_not_cut_off(database: CasesDatabase) -> None:
    url = make_dsn(database.service_dsn, options="-c statement_timeout=0")
    with closing(Watchdog().watch(connect(url))) as connection:
        execute(connection, "SELECT pg_sleep(0.6)")  # longer than two polling intervals
        assert not connection.cut_off
        assert execute(connection, "SELECT 42") == [(42,)]


def test_a_server_that_hangs_after_the_login_is_cut_off(proxy: Proxy) -> None:
    connection = connect(proxy.dsn)
    proxy.forwards.clear()
    with pytest.raises(psycopg2.OperationalError):
        Watchdog().watch(connection)
    assert connection.cut_off
    assert connection.closed


def test_a_server_that_hangs_within_a_list_is_cut_off(proxy: Proxy) -> None:
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


def test_a_lost_connection_can_be_cut_off_and_closed_twice(database: CasesDatabase) -> None:
    connection = connect(database.service_dsn)
    execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
    connection.cut()
    connection.close()
    connection.cut()
    connection.close()
    with pytest.raises(psycopg2.InterfaceError):
        execute(connection, "SELECT 42")


def test_watch_closes_a_lost_connection(database: CasesDatabase) -> None:
    connections = open_connections()
    connection = connect(database.service_dsn)
    assert open_connections() == connections + 1
    execute(database.owner, "SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
    with pytest.raises(psycopg2.OperationalError):
        Watchdog().watch(connection)
    assert open_connections() == connections
