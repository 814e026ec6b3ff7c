"""The pool: fewer connections than requests, first come first served, maximum age, refused logins."""

import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from psycopg2.extensions import make_dsn

from medmitra_cases.admin import Readiness
from medmitra_cases.database.connection import Connection, connect
from medmitra_cases.database.database import Database
from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.errors import DatabaseUnavailable
from tests.support.factories import DOCTOR, LAYOUTS, CasesDatabase, backend_pid, case, client_on, execute
from tests.support.load import load
from tests.support.processes import TIMEOUT_SECONDS, serve, wait_until
from tests.support.proxy import Proxy

# These tests do not depend on the table layout.
pytestmark = [
    pytest.mark.parametrize("layout_database", ["own_table"], indirect=True),
    pytest.mark.usefixtures("layout_database"),
]

TARGET = f"/cases/all_cases?user_id={DOCTOR}"
ADMIN = {"MEDMITRA_ADMIN_LISTEN": "127.0.0.1:0"}


@contextmanager
def limited(database: CasesDatabase, count: int) -> Iterator[None]:
    """Allow the service only so many sessions in this database."""
    ((name, others),) = execute(
        database.owner,
        "SELECT current_database(), count(*) FROM pg_stat_activity WHERE datname = current_database()",
    )
    execute(database.owner, f"ALTER DATABASE {name} CONNECTION LIMIT {others + count}")
    try:
        yield
    finally:
        execute(database.owner, f"ALTER DATABASE {name} CONNECTION LIMIT -1")


def waiting(database: Database) -> int:
    """Return the number of reads that wait for a connection."""
    return len(database._pool._waiters)


def are_waiting(database: Database, count: int) -> bool:
    """Return whether so many reads wait for a connection."""
    return waiting(database) == count


@pytest.mark.parametrize("allowed", [1, 4])
def test_no_request_fails_if_postgres_allows_fewer_connections_than_requests(
    database: CasesDatabase, allowed: int
) -> None:
    database.add(case())
    with (
        limited(database, allowed),
        serve(database.service_dsn, MEDMITRA_THREADS="8", **ADMIN) as server,
        load(lambda: HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS), TARGET, 8) as clients,
    ):
        for _ in range(5):
            clients.wait_for(100)
            assert server.ask_admin("/readyz")[0] == 200
        clients.stop()
        assert clients.failed == []
        assert 0 < len(database.sessions) <= allowed
        # The limit is raised while the service runs.
    with serve(database.service_dsn, MEDMITRA_THREADS="8") as server:
        assert server.get(TARGET)[0].status == 200


def test_a_read_waits_for_its_turn_while_a_long_list_has_the_only_connection(database: CasesDatabase) -> None:
    with limited(database, 1), closing(Database(database.service_dsn, wait_seconds=30)) as reader:
        release = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(reader.read, time.monotonic(), lambda _: release.wait(TIMEOUT_SECONDS))
            wait_until(lambda: len(database.sessions) == 1)
            second = pool.submit(reader.read, time.monotonic(), backend_pid)
            wait_until(lambda: waiting(reader) == 1)
            release.set()
            assert first.result()
            assert second.result()


def test_reads_get_connections_in_the_order_in_which_they_came(database: CasesDatabase) -> None:
    served: list[int] = []
    release = threading.Event()
    with closing(Database(database.service_dsn, wait_seconds=30, max_connections=1)) as reader:
        with ThreadPoolExecutor(6) as pool:
            reads: list[Future[object]] = [
                pool.submit(reader.read, time.monotonic(), lambda _: release.wait(TIMEOUT_SECONDS))
            ]
            wait_until(lambda: len(database.sessions) == 1 and waiting(reader) == 0)
            for number in range(5):

                def note(_: Connection, number: int = number) -> None:
                    served.append(number)

                reads.append(pool.submit(reader.read, time.monotonic(), note))
                wait_until(partial(are_waiting, reader, number + 1))
            release.set()
        assert [read.exception() for read in reads] == [None] * 6
    assert served == [0, 1, 2, 3, 4]
    assert len(database.sessions) <= 1


def test_a_read_without_its_turn_in_time_says_why(database: CasesDatabase) -> None:
    release = threading.Event()
    with limited(database, 1), closing(Database(database.service_dsn, wait_seconds=0.5)) as reader:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(reader.read, time.monotonic(), lambda _: release.wait(TIMEOUT_SECONDS))
            wait_until(lambda: len(database.sessions) == 1)
            with pytest.raises(DatabaseUnavailable) as raised:
                reader.read(time.monotonic(), backend_pid)
            release.set()
            assert first.result()
        assert "too many connections for database" in raised.value.log_text()
        assert reader.read(time.monotonic(), backend_pid)


def test_readiness_does_not_wait_for_requests_that_came_before(database: CasesDatabase) -> None:
    served: list[str] = []
    release = threading.Event()
    with closing(Database(database.service_dsn, wait_seconds=30, max_connections=1)) as reader:
        readiness = reader.for_readiness(wait_seconds=30)
        with ThreadPoolExecutor(4) as pool:
            reads: list[Future[object]] = [
                pool.submit(reader.read, time.monotonic(), lambda _: release.wait(TIMEOUT_SECONDS))
            ]
            wait_until(lambda: len(database.sessions) == 1 and waiting(reader) == 0)
            for number, name in enumerate(("request", "request", "readiness")):
                database_of = readiness if name == "readiness" else reader
                reads.append(
                    pool.submit(database_of.read, time.monotonic(), lambda _, name=name: served.append(name))
                )
                wait_until(partial(are_waiting, reader, number + 1))
            release.set()
        assert [read.exception() for read in reads] == [None] * 4
    assert served == ["readiness", "request", "request"]


@pytest.mark.parametrize("first", ["request", "readiness"])
def test_readiness_and_requests_share_the_only_connection(database: CasesDatabase, first: str) -> None:
    with limited(database, 1), closing(Database(database.service_dsn, wait_seconds=3)) as reader:
        readiness = Readiness(reader, row_versions=True)
        if first == "request":
            assert reader.read(time.monotonic(), backend_pid)
        for _ in range(3):
            assert readiness.problem() is None
            assert reader.read(time.monotonic(), backend_pid)
        assert len(database.sessions) == 1


@pytest.mark.parametrize("error", [OSError("Too many open files"), RuntimeError("can't start new thread")])
def test_a_read_waits_for_its_turn_if_the_process_cannot_open_another_connection(
    database: CasesDatabase, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    reading, release = threading.Event(), threading.Event()

    def hold(_: Connection) -> bool:
        reading.set()
        return release.wait(TIMEOUT_SECONDS)

    with closing(Database(database.service_dsn, wait_seconds=30)) as reader, ThreadPoolExecutor(2) as pool:
        first = pool.submit(reader.read, time.monotonic(), hold)
        assert reading.wait(TIMEOUT_SECONDS)
        if isinstance(error, OSError):
            monkeypatch.setattr("medmitra_cases.database.connector.connect", fail)
        else:
            monkeypatch.setattr("medmitra_cases.database.connector.Connector.start", fail)
        second = pool.submit(reader.read, time.monotonic(), backend_pid)
        wait_until(lambda: waiting(reader) == 1)
        release.set()
        assert first.result()
        assert second.result()
        assert len(database.sessions) == 1


def test_an_interrupted_read_gives_back_only_a_connection_that_is_idle(database: CasesDatabase) -> None:
    def interrupt(connection: Connection) -> None:
        connection.autocommit = False
        execute(connection, "SELECT 1")
        raise KeyboardInterrupt

    with closing(Database(database.service_dsn, wait_seconds=30, max_connections=1)) as reader:
        pid = reader.read(time.monotonic(), backend_pid)
        with pytest.raises(KeyboardInterrupt):
            reader.read(time.monotonic(), interrupt)
        assert reader.read(time.monotonic(), backend_pid) != pid
        assert len(database.sessions) == 1


def test_a_connection_is_replaced_at_its_maximum_age(database: CasesDatabase) -> None:
    with closing(Database(database.service_dsn, wait_seconds=30, max_age_seconds=1)) as reader:
        pids = Counter([reader.read(time.monotonic(), backend_pid)])
        wait_until(lambda: pids.update([reader.read(time.monotonic(), backend_pid)]) or len(pids) == 3)


def test_one_read_closes_all_idle_connections_that_are_too_old(database: CasesDatabase) -> None:
    barrier = threading.Barrier(4)
    with closing(Database(database.service_dsn, wait_seconds=30, max_age_seconds=1)) as reader:
        with ThreadPoolExecutor(4) as pool:
            pids = [
                pool.submit(
                    reader.read, time.monotonic(), lambda c: (barrier.wait(TIMEOUT_SECONDS), backend_pid(c))
                )
                for _ in range(4)
            ]
            before = {pid.result()[1] for pid in pids}
        assert len(before) == 4
        wait_until(lambda: reader.read(time.monotonic(), backend_pid) not in before)
        wait_until(lambda: len(database.sessions) == 1)


def test_readiness_replaces_its_connection_too(database: CasesDatabase) -> None:
    with serve(database.service_dsn, MEDMITRA_CONNECTION_MAX_AGE_SECONDS="1", **ADMIN) as server:
        seen: set[int] = set()

        def pids() -> set[int]:
            assert server.ask_admin("/readyz")[0] == 200
            seen.update(database.sessions)
            return seen

        wait_until(lambda: len(pids()) == 3)


def test_a_read_that_is_older_than_its_connection_may_be_is_completed(database: CasesDatabase) -> None:
    with closing(Database(database.service_dsn, wait_seconds=30, max_age_seconds=1)) as reader:

        def read_slowly(connection: Connection) -> int:
            execute(connection, "SELECT pg_sleep(1.5)")
            return backend_pid(connection)

        pid = reader.read(time.monotonic(), read_slowly)
        assert reader.read(time.monotonic(), backend_pid) != pid


def test_no_request_reads_the_old_server_after_its_name_has_moved(
    database: CasesDatabase, folder: Path
) -> None:
    database.add(case())
    ((name,),) = execute(database.owner, "SELECT current_database()")

    def counts(client: FlaskClient) -> list[int]:
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(client.application.test_client().get, TARGET) for _ in range(24)]
            return [
                answer.result().text.count("case_id")
                for answer in answers
                if answer.result().status_code == 200
            ]

    with (
        embedded_postgres(folder) as new_server,
        closing(Proxy(database.service_dsn)) as proxy,
        client_on(proxy.dsn, MEDMITRA_CONNECTION_MAX_AGE_SECONDS="1") as client,
    ):
        with closing(connect(new_server)) as owner:
            execute(owner, f"CREATE DATABASE {name}")
        with closing(connect(make_dsn(new_server, dbname=name))) as owner:
            LAYOUTS["own_table"].create(owner)
        assert counts(client) == [1] * 24
        proxy.forward_to(new_server)
        moved_at = time.monotonic()
        wait_until(lambda: time.monotonic() > moved_at + 1)  # the maximum age
        assert counts(client) == [0] * 24


def test_connections_do_not_expire_at_the_same_time(database: CasesDatabase) -> None:
    barrier = threading.Barrier(8)

    def age(connection: Connection) -> float:
        barrier.wait(TIMEOUT_SECONDS)
        return connection.expires_at - connection.opened_at

    with (
        closing(Database(database.service_dsn, wait_seconds=30, max_age_seconds=1000)) as reader,
        ThreadPoolExecutor(8) as pool,
    ):
        ages = list(pool.map(lambda _: reader.read(time.monotonic(), age), range(8)))
    assert len(set(ages)) == 8
    assert all(800 <= age <= 1000 for age in ages)


class RefusingServer(socketserver.ThreadingTCPServer):
    """A server that refuses each login with an error message.

    Attributes:
        dsn: Its connection string.
        responds: Set while it sends the errors. It accepts connections in any case.
        logins: The number of logins so far.
        most_at_once: The maximum number of logins at the same time.
    """

    daemon_threads = True

    def __init__(self, message: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _RefusedLogin)
        self.message = message
        self.dsn = f"host=127.0.0.1 port={self.server_address[1]} sslmode=disable user=x dbname=x"
        self.responds = threading.Event()
        self.responds.set()
        self.logins = self.most_at_once = self.now = 0
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self.shutdown()
        self.server_close()


class _RefusedLogin(socketserver.BaseRequestHandler):
    server: RefusingServer

    def handle(self) -> None:
        server = self.server
        server.logins += 1
        server.now += 1
        server.most_at_once = max(server.most_at_once, server.now)
        self.request.recv(1_000)  # the startup packet
        server.responds.wait(TIMEOUT_SECONDS)
        server.now -= 1
        self.request.sendall(b"E" + struct.pack("!I", len(server.message) + 4) + server.message)


@pytest.mark.parametrize(
    "message",
    [
        b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "x"\0\0',
        b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry for host\0\0",
        b"SFATAL\0C08P01\0Mno more connections allowed (max_client_conn)\0\0",  # PgBouncer
        "S致命的エラー\0C28P01\0Mパスワード認証に失敗しました\0\0".encode(),
    ],
)
def test_all_reads_share_one_refused_login_at_a_time_and_its_growing_pauses(
    message: bytes,
) -> None:
    stop = threading.Event()
    failures: list[DatabaseUnavailable] = []
    with closing(RefusingServer(message)) as server:
        reader = Database(server.dsn, wait_seconds=0.5)

        def poll() -> None:
            while not stop.is_set():
                with pytest.raises(DatabaseUnavailable) as raised:
                    reader.read(time.monotonic(), backend_pid)
                failures.append(raised.value)
                stop.wait(0.005)

        server.responds.clear()
        with ThreadPoolExecutor(8) as pool:
            polls = [pool.submit(poll) for _ in range(8)]
            wait_until(lambda: are_waiting(reader, 8))
            assert server.logins <= 1  # the first attempt waits for its response
            server.responds.set()
            wait_until(lambda: server.logins >= 6 and len(failures) > 100)
            began_at, logins = time.monotonic(), server.logins
            wait_until(lambda: time.monotonic() > began_at + 1)
            stop.set()
        assert [poll.exception() for poll in polls] == [None] * 8
        # By now a pause is longer than 0.8 s.
        assert server.logins - logins <= 2
        assert server.most_at_once == 1
    assert all("OperationalError" in failure.log_text() for failure in failures[-100:])


def test_a_read_whose_time_is_over_makes_one_attempt_to_connect() -> None:
    with closing(
        RefusingServer(b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0")
    ) as server:
        reader = Database(server.dsn, wait_seconds=3)
        for _ in range(3):
            logins = server.logins
            with pytest.raises(DatabaseUnavailable):
                reader.read(time.monotonic() - 60, backend_pid)
            assert server.logins <= logins + 1
    assert server.logins >= 1


@pytest.mark.parametrize(
    ("message", "is_refused"),
    [
        (b'SFATAL\0C55000\0Mdatabase "x" is not currently accepting connections\0\0', False),
        (b'SFATAL\0C55000\0Mdatabase "a" "b" is not currently accepting connections\0\0', False),
        (b"SFATAL\0C57P03\0Mthe database system is in recovery mode\0\0", False),
        (b'SFATAL\0C3D000\0Mdatabase "x" does not exist\0\0', True),
    ],
)
def test_a_database_that_will_soon_accept_connections_has_not_refused_the_login(
    message: bytes, is_refused: bool
) -> None:
    """After a refused login the pauses grow to 5 s, and otherwise to 0.4 s."""
    with closing(RefusingServer(message)) as server:
        reader = Database(server.dsn, wait_seconds=0.1)
        with pytest.raises(DatabaseUnavailable):
            reader.read(time.monotonic(), backend_pid)
        assert reader._pool._connector.is_refused is is_refused


def test_a_connection_that_opens_after_the_close_is_closed(database: CasesDatabase) -> None:
    with closing(Proxy(database.service_dsn)) as proxy:
        proxy.forwards.clear()
        with (
            closing(Database(proxy.dsn, wait_seconds=0.5)) as reader,
            pytest.raises(DatabaseUnavailable),
        ):
            reader.read(time.monotonic(), backend_pid)
        proxy.forwards.set()
        wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "connect"])
        assert database.sessions == []


def test_a_connection_that_is_given_back_after_the_close_is_closed(database: CasesDatabase) -> None:
    def select_cases(connection: Connection) -> object:
        return execute(connection, "SELECT 1 FROM medmitra.cases")

    reader = Database(database.service_dsn, wait_seconds=30)
    with ThreadPoolExecutor(1) as pool:
        with database.locked():
            read = pool.submit(
                reader.read,
                time.monotonic(),
                partial(execute, statement="SELECT FROM medmitra.cases LIMIT 1"),
            )
            wait_until(lambda: database.waiting)
            reader.close()
        assert read.result() == []
    wait_until(lambda: database.sessions == [])


def test_readiness_beside_requests_repeats_no_read(database: CasesDatabase) -> None:
    database.add(case())
    with (
        serve(database.service_dsn, **ADMIN) as server,
        load(lambda: HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS), TARGET, 8) as clients,
    ):
        while len(clients.answers) < 300:
            assert server.ask_admin("/readyz")[0] == 200
        clients.stop()
        assert {answer.status for answer in clients.answers} == {200}
        assert server.metric("medmitra_database_retries_total") == 0


@pytest.mark.parametrize("wrong", ["NOLOGIN", "CONNECTION LIMIT 0", "DATABASE"])
def test_a_server_that_refuses_the_service_gets_few_logins(database: CasesDatabase, wrong: str) -> None:
    """Check that the service also recovers without a restart."""
    ((name,),) = execute(database.owner, "SELECT current_database()")
    break_it = f"ALTER ROLE medmitra_cases {wrong}"
    repair = "ALTER ROLE medmitra_cases LOGIN CONNECTION LIMIT -1"
    if wrong == "DATABASE":
        break_it = f"ALTER DATABASE {name} CONNECTION LIMIT 0"
        repair = f"ALTER DATABASE {name} CONNECTION LIMIT -1"
    database.add(case())
    execute(database.owner, break_it)
    try:
        with (
            closing(Proxy(database.service_dsn)) as proxy,
            serve(proxy.dsn, **ADMIN) as server,
            load(
                lambda: HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS), TARGET, 8
            ) as clients,
        ):
            wait_until(lambda: proxy.accepted >= 7)
            logins, began_at = proxy.accepted, time.monotonic()
            while time.monotonic() < began_at + 3:
                assert server.ask_admin("/readyz")[0] == 503
            assert proxy.accepted <= logins + 2
            execute(database.owner, repair)
            wait_until(lambda: server.ask_admin("/readyz")[0] == 200)
            wait_until(lambda: clients.answers[-1].status == 200)
            clients.stop()
        assert {answer.status for answer in clients.answers} == {200, 500}
    finally:
        execute(database.owner, repair)
