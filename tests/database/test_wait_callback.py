"""One callback for the process: threads that wait for Postgres, beside requests that wait in a scheduler."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from psycopg2.extensions import make_dsn, set_wait_callback

from medmitra_cases.database import wait_callback
from medmitra_cases.database.connection import Connection, connect
from medmitra_cases.telemetry import scheduler
from tests.support.factories import DOCTOR, CasesDatabase, case, execute
from tests.support.processes import serve, wait_until

pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

TARGET = f"/cases/all_cases?user_id={DOCTOR}"


@pytest.fixture(autouse=True)
def _callback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove the callback afterwards, for logins of other tests."""
    monkeypatch.setattr(wait_callback, "_is_used", False)
    yield
    set_wait_callback(None)


class OneRequest:
    """A scheduler that runs no other requests."""

    def wait_for_call(self, call: Callable[[], None]) -> None:
        call()

    def wait_for_descriptor(self, descriptor: int, *, is_write: bool) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT if is_write else select.POLLIN)
        poll.poll()


def run_statements(connection: Connection) -> None:
    for number in range(1_000):
        assert execute(connection, "SELECT %s", [number]) == [(number,)]


def log_in_and_out(connection: Connection) -> None:
    for _ in range(50):
        connect(connection.dsn).close()


def test_no_statement_fails_because_a_login_has_removed_the_callback(database: CasesDatabase) -> None:
    stop = threading.Event()

    def repeat(action: Callable[[Connection], None], *, in_scheduler: bool = False) -> int:
        scheduler.set(OneRequest() if in_scheduler else None)
        count = 0
        with closing(connect(database.service_dsn)) as connection:
            while not stop.is_set():
                action(connection)
                count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        others = [
            pool.submit(repeat, run_statements, in_scheduler=True),
            pool.submit(repeat, run_statements),  # as readiness does, in its thread
            pool.submit(repeat, log_in_and_out),
        ]
        try:
            with closing(connect(database.service_dsn)) as connection:
                for _ in range(20):
                    log_in_and_out(connection)
        finally:
            stop.set()
        assert all(other.result() > 0 for other in others)


def test_a_silent_host_does_not_stop_a_login_beside_requests(database: CasesDatabase) -> None:
    database.add(case())
    ((port,),) = execute(database.owner, "SHOW port")
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        hosts = {"host": f"127.0.0.1,{database.owner.info.host}", "port": f"{silent.getsockname()[1]},{port}"}
        url = make_dsn(database.service_dsn, **hosts)
        with (
            serve(url, MEDMITRA_DATABASE_WAIT_SECONDS="20", MEDMITRA_ADMIN_LISTEN="off") as server,
            ThreadPoolExecutor(2) as pool,
        ):
            assert server.get(TARGET)[0].status == 200  # it tries the silent host for 2 s
            with database.locked():
                # The first waits for the lock, while the second opens a connection in the same way.
                responses = [pool.submit(server.get, TARGET) for _ in range(2)]
                wait_until(lambda: len(database.waiting) == 2)
            assert [response.result()[0].status for response in responses] == [200, 200]
