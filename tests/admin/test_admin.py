"""The admin listener: liveness, readiness and metrics."""

import http.client
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg2.extensions import make_dsn

from medmitra_cases import __version__
from medmitra_cases.admin.readiness import Readiness
from medmitra_cases.database import Database
from medmitra_cases.errors import DatabaseUnavailable
from tests.support.factories import DOCTOR, CasesDatabase, case, execute
from tests.support.processes import TIMEOUT_SECONDS, Running, frozen, receive_all, run, serve, wait_until

# These tests do not depend on the table layout.
pytestmark = [
    pytest.mark.parametrize("layout_database", ["own_table"], indirect=True),
    pytest.mark.usefixtures("layout_database"),
]

URL = "/cases/all_cases"
TARGET = f"{URL}?user_id={DOCTOR}"
ADMIN = {"MEDMITRA_ADMIN_LISTEN": "127.0.0.1:0"}
THREADS = 2
SESSIONS = "FROM pg_stat_activity WHERE application_name = 'new' AND datname = current_database()"
IN_FLIGHT = "medmitra_http_requests_in_flight"
RETRIES = "medmitra_database_retries_total"
OPEN = "medmitra_database_connections_open"
BUSY = "medmitra_database_connections_busy"
STATEMENTS = "medmitra_database_seconds_count"
CASES = "medmitra_cases_returned_total"

ALIVE = (200, '{"status":"alive"}')
READY = (200, '{"status":"ready"}')


def not_ready(detail: str) -> tuple[int, str]:
    return 503, json.dumps({"detail": detail}, separators=(",", ":"))


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    """Run the service with two requests at a time."""
    with serve(layout_database.service_dsn, MEDMITRA_THREADS=str(THREADS), **ADMIN) as server:
        yield server


@pytest.fixture
def new_server(database: CasesDatabase) -> Iterator[Running]:
    """Run a service without earlier requests and with another application_name in Postgres."""
    url = make_dsn(database.service_dsn, application_name="new")
    with serve(url, MEDMITRA_THREADS=str(THREADS), **ADMIN) as server:
        yield server


def requests(server: Running) -> Counter[tuple[str, str]]:
    """Return the number of counted requests by route and status."""
    return count(server, "route", "status")


def errors(server: Running) -> Counter[tuple[str, str]]:
    """Return the number of counted requests by status and by the kind of the failure."""
    return count(server, "status", "error")


def count(server: Running, *labels: str) -> Counter[tuple[str, str]]:
    """Return the number of counted requests by two labels."""
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(server.ask_admin("/metrics")[1]):
        for sample in family.samples:
            if sample.name == "medmitra_http_request_seconds_count":
                first, second = (sample.labels[label] for label in labels)
                found[first, second] += int(sample.value)
    return found


def listeners(server: Running) -> int:
    """Return the number of listening TCP sockets of the process."""
    process = Path(f"/proc/{server.process.pid}")
    inodes = {str(path.readlink()) for path in (process / "fd").iterdir()}
    rows = [line.split() for line in (process / "net" / "tcp").read_text().splitlines()[1:]]
    return sum(row[3] == "0A" and f"socket:[{row[9]}]" in inodes for row in rows)


@pytest.mark.parametrize(("listen", "count"), [("off", 1), ("127.0.0.1:0", 2)])
def test_the_admin_listener_can_be_off(listen: str, count: int) -> None:
    with serve("host=127.0.0.1", MEDMITRA_ADMIN_LISTEN=listen) as server:
        assert listeners(server) == count
        assert server.get("/livez")[0].status == 404
        assert server.end() == 0
    assert ("probes and metrics" in server.printed) == (count == 2)


def test_an_address_in_use_causes_a_one_line_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run(
            "serve", "--listen", "127.0.0.1:0", DATABASE_URL="host=127.0.0.1", MEDMITRA_ADMIN_LISTEN=listen
        )
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: cannot listen on {listen}: Address already in use (")
    assert "MEDMITRA_ADMIN_LISTEN" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_each_listener_serves_only_its_own_paths(server: Running) -> None:
    for target in ("/livez", "/readyz", "/metrics"):
        response, body = server.get(target)
        assert (response.status, response.headers["Content-Type"]) == (404, "application/json")
        assert list(json.loads(body)) == ["detail"]
    for target in (TARGET, "/", "/livez/", "/x"):
        status, text = server.ask_admin(target)
        assert status == 404
        assert list(json.loads(text)) == ["detail"]


@pytest.mark.parametrize(
    ("target", "content_type"),
    [
        ("/livez", "application/json"),
        ("/readyz", "application/json"),
        ("/metrics", "text/plain; version="),
    ],
)
def test_responses_have_their_content_type(server: Running, target: str, content_type: str) -> None:
    with closing(
        http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=TIMEOUT_SECONDS)
    ) as connection:
        for method in ("GET", "HEAD"):
            connection.request(method, target)
            response = connection.getresponse()
            assert response.status == 200
            assert response.headers["Content-Type"].startswith(content_type)
            assert response.headers["X-Request-ID"]
            assert bool(response.read()) == (method == "GET")
        connection.request("POST", target)
        response = connection.getresponse()
        assert response.status == 405
        assert list(json.loads(response.read())) == ["detail"]


def test_livez_and_readyz_report_a_working_service(server: Running) -> None:
    assert server.ask_admin("/livez") == ALIVE
    assert server.ask_admin("/readyz") == READY


def test_livez_works_if_all_requests_wait_for_the_database(server: Running, database: CasesDatabase) -> None:
    before = server.metric(IN_FLIGHT)
    with database.locked() as writer, ThreadPoolExecutor(5) as pool:
        responses = [pool.submit(server.get, TARGET) for _ in range(5)]
        wait_until(lambda: len(database.waiting) == THREADS)
        wait_until(lambda: server.metric(IN_FLIGHT) == before + 5)
        assert server.metric(BUSY) == THREADS
        assert server.ask_admin("/livez") == ALIVE
        writer.rollback()
        assert [response.result()[0].status for response in responses] == [200] * 5
    wait_until(lambda: server.metric(IN_FLIGHT) == before == server.metric(BUSY) == 0)


def test_livez_works_but_readyz_fails_without_a_database() -> None:
    wait = {"MEDMITRA_DATABASE_WAIT_SECONDS": "60"}
    with serve("host=127.0.0.1 port=1", **wait, **ADMIN) as server:
        assert server.ask_admin("/livez") == ALIVE
        for _ in range(3):
            assert server.ask_admin("/readyz") == not_ready("database unavailable")
        assert server.metric(OPEN) == 0
        assert server.end() == 0
    assert server.printed.count("not ready: database unavailable") == 1
    assert "Traceback" not in server.printed


def test_readyz_fails_without_the_table(empty_database: str) -> None:
    with serve(empty_database, **ADMIN) as server:
        assert server.ask_admin("/readyz") == not_ready("unexpected database error")
        assert server.ask_admin("/livez") == ALIVE


def test_readyz_fails_without_a_right_that_requests_need(database: CasesDatabase) -> None:
    execute(database.owner, "REVOKE SELECT (xmin) ON medmitra.cases FROM medmitra_cases")
    try:
        rows = {"MEDMITRA_ETAG_SOURCE": "rows"}
        with serve(database.service_dsn, **ADMIN, **rows) as server:
            assert server.ask_admin("/readyz") == not_ready("unexpected database error")
        for source in ("auto", "body"):
            with serve(database.service_dsn, **ADMIN, MEDMITRA_ETAG_SOURCE=source) as server:
                assert server.ask_admin("/readyz") == READY
    finally:
        execute(database.owner, "GRANT SELECT (xmin) ON medmitra.cases TO medmitra_cases")


def test_readyz_fails_while_the_database_is_frozen(new_server: Running, database: CasesDatabase) -> None:
    assert new_server.ask_admin("/readyz") == READY
    ((pid,),) = execute(database.owner, f"SELECT pid {SESSIONS}")
    with frozen(pid), ThreadPoolExecutor(20) as pool:
        probes = [pool.submit(new_server.ask_admin, "/readyz") for _ in range(20)]
        assert new_server.ask_admin("/livez") == ALIVE
        expected = not_ready("no answer from the database within 1 s")
        assert [probe.result() for probe in probes] == [expected] * 20
    wait_until(lambda: new_server.ask_admin("/readyz") == READY)
    new_server.wait_for(r"not ready: no answer .*\n.*ready again")
    ((connections,),) = execute(database.owner, f"SELECT count(*) {SESSIONS}")
    assert connections == 1


def test_readyz_works_again_after_a_lost_connection(new_server: Running, database: CasesDatabase) -> None:
    for _ in range(3):
        assert new_server.ask_admin("/readyz") == READY
        execute(database.owner, f"SELECT pg_terminate_backend(pid, 5000) {SESSIONS}")
    assert new_server.ask_admin("/readyz") == READY


def test_many_probes_share_one_connection(new_server: Running, database: CasesDatabase) -> None:
    with ThreadPoolExecutor(10) as pool:  # a third of the connection limit
        probes = [pool.submit(new_server.ask_admin, "/readyz") for _ in range(90)]
        assert [probe.result() for probe in probes] == [READY] * 90
    ((connections,),) = execute(database.owner, f"SELECT count(*) {SESSIONS}")
    assert connections == new_server.metric(OPEN) == 1


def test_the_readiness_check_survives_an_unexpected_error(
    database: CasesDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [OSError(24, "Too many open files"), DatabaseUnavailable()]

    def fail(_url: str) -> None:
        raise failures.pop(0)

    with closing(Database(database.service_dsn, wait_seconds=3)) as connections:
        readiness = Readiness(connections, row_versions=True)
        with monkeypatch.context() as failing:
            failing.setattr("medmitra_cases.database.connector.connect", fail)
            assert readiness.problem() == "unexpected error"
            assert "Too many open files" in caplog.text
            assert readiness.problem() == "database unavailable"
        assert readiness.problem() is None


def test_the_readiness_check_survives_a_thread_that_cannot_start(
    database: CasesDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cannot_start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(Database(database.service_dsn, wait_seconds=3)) as connections:
        readiness = Readiness(connections, row_versions=True)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", cannot_start)
            assert readiness.problem() == "unexpected error"
        assert "can't start new thread" in caplog.text
        assert readiness.problem() is None


def test_the_admin_listener_closes_excess_connections(server: Running) -> None:
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.admin_port), TIMEOUT_SECONDS))
            for _ in range(40)
        ]
        assert connections[-1].recv(1) == b""
        connections[0].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connections[0].recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.get(URL)[0].status == 400
    wait_until(lambda: responds(server))


def responds(server: Running) -> bool:
    """Return whether the admin listener responds."""
    try:
        return server.ask_admin("/livez") == ALIVE
    except (OSError, http.client.HTTPException):
        return False


class TestMetrics:
    """The content of ``/metrics``."""

    @pytest.mark.parametrize(
        ("request_line", "route", "status"),
        [
            (f"GET {TARGET}", URL, "200"),
            (f"HEAD {TARGET}", URL, "200"),
            (f"GET //{TARGET}", URL, "200"),
            (f"GET {URL}", URL, "400"),
            (f"POST {TARGET}", URL, "405"),
            ("GET /Zebediah/Quux", "other", "404"),
            ("GET /livez", "other", "404"),
            (f"POST {TARGET} HTTP/1.1\r\nContent-Length: 65537", URL, "413"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip", "other", "501"),
            ("GET / HTTP/1.1\r\nX: " + "x" * 262_144, "other", "431"),
            ("GET  / ", "other", "400"),
        ],
        ids=lambda value: value[:20].strip(),
    )
    @pytest.mark.usefixtures("database")
    def test_requests_are_counted_by_route_and_status(
        self, server: Running, request_line: str, route: str, status: str
    ) -> None:
        if " HTTP/" not in request_line:
            request_line += " HTTP/1.1"
        before = requests(server)
        server.send(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        after = before + Counter([(route, status)])
        wait_until(lambda: requests(server) == after)

    def test_failures_are_counted(self, server: Running, database: CasesDatabase) -> None:
        before, errors_before = requests(server), errors(server)
        retries = server.metric(RETRIES)
        with database.locked(), ThreadPoolExecutor(1) as pool:
            response = pool.submit(server.get, TARGET)
            wait_until(lambda: database.waiting)
            execute(database.owner, "SELECT pg_cancel_backend(%s)", database.waiting)
            assert response.result()[0].status == 500
        wait_until(lambda: requests(server) == before + Counter([(URL, "500")]))
        assert errors(server) == errors_before + Counter([("500", "query_timed_out")])
        assert server.metric(RETRIES) == retries

    def test_incomplete_responses_are_counted(self, server: Running, database: CasesDatabase) -> None:
        database.add_many([DOCTOR], 40_000)
        before, errors_before = requests(server), errors(server)
        with server.connect() as client:
            client.sendall(f"GET {TARGET} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(100)
        wait_until(lambda: requests(server) == before + Counter([(URL, "broken_off")]))
        assert errors(server) == errors_before + Counter([("broken_off", "")])

    def test_responses_that_the_database_interrupts_are_counted(
        self, server: Running, database: CasesDatabase
    ) -> None:
        database.add_many([DOCTOR], 40_000)
        before = errors(server)
        with server.connect() as client:
            client.sendall(f"GET {TARGET} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(100)
            database.terminate_sessions()
            receive_all(client)
        wait_until(lambda: errors(server) == before + Counter([("broken_off", "database_unavailable")]))

    def test_disconnected_clients_are_counted(self, server: Running, database: CasesDatabase) -> None:
        expected = sum(requests(server).values()) + 1
        with database.locked(), server.connect() as client:
            client.sendall(f"GET {TARGET} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: database.waiting)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # sends RST
        wait_until(lambda: sum(requests(server).values()) == expected)
        wait_until(lambda: server.metric(IN_FLIGHT) == 0)

    def test_unknown_paths_and_methods_are_no_labels(self, server: Running) -> None:
        for number in range(5):
            server.get(f"/stranger-{number}")
            server.get(f"{TARGET}&stranger={number}", f"STRANGER{number}")
        text = server.ask_admin("/metrics")[1]
        assert {route for route, _ in requests(server)} <= {URL, "other"}
        assert "stranger" not in text.lower()

    def test_probes_are_not_counted(self, new_server: Running) -> None:
        for target in ("/livez", "/readyz", "/metrics", "/x"):
            new_server.ask_admin(target)
        assert requests(new_server) == {}
        assert new_server.metric(IN_FLIGHT) == 0

    def test_connections_and_retries_are_counted(self, new_server: Running, database: CasesDatabase) -> None:
        assert new_server.metric(OPEN) == 0
        request_on_all_connections(new_server, database)
        assert new_server.metric(OPEN) == THREADS
        assert new_server.metric(RETRIES) == 0
        new_server.ask_admin("/readyz")
        assert new_server.metric(OPEN) == THREADS  # readiness took an idle one
        execute(database.owner, f"SELECT pg_terminate_backend(pid, 5000) {SESSIONS}")
        request_on_all_connections(new_server, database)
        assert new_server.metric(RETRIES) == THREADS
        assert new_server.metric(OPEN) == THREADS
        assert new_server.metric(BUSY) == 0

    def test_the_time_of_statements_is_measured(self, server: Running, database: CasesDatabase) -> None:
        name, bucket = "medmitra_database_seconds", 'medmitra_database_seconds_bucket{le="0.1"}'
        before, slow_before = server.metric(STATEMENTS), server.metric(STATEMENTS) - server.metric(bucket)
        with database.locked() as writer, ThreadPoolExecutor(1) as pool:
            response = pool.submit(server.get, TARGET)
            wait_until(lambda: database.waiting)
            execute(writer, "SELECT pg_sleep(0.2)")
            writer.rollback()
            assert response.result()[0].status == 200
        assert server.metric(STATEMENTS) > before
        assert server.metric(STATEMENTS) - server.metric(bucket) == slow_before + 1
        assert server.metric(f"{name}_sum") > 0.2

    def test_returned_cases_are_counted(self, server: Running, database: CasesDatabase) -> None:
        database.add(case(), case(), case())
        before = server.metric(CASES)
        server.get(TARGET)
        assert server.metric(CASES) == before + 3
        server.get(TARGET, "HEAD")
        server.get(URL)
        assert server.metric(CASES) == before + 3
        database.add_many([DOCTOR], 2_997)
        server.get(TARGET)
        assert server.metric(CASES) == before + 3_003

    def test_metrics_have_the_version_and_process_resources(self, server: Running) -> None:
        status, text = server.ask_admin("/metrics")
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert all(family.documentation for family in families.values())
        (build,) = families["medmitra_build_info"].samples
        assert (build.labels, build.value) == ({"version": __version__}, 1)
        for name in ("process_open_fds", "process_resident_memory_bytes"):
            assert families[name].samples[0].value > 0

    def test_metrics_name_no_patients_or_doctors(self, server: Running, database: CasesDatabase) -> None:
        database.add(case(patient_name="Zebediah Quux"))
        server.get(TARGET, **{"X-Request-ID": "night-shift", "X-Forwarded-For": "198.51.100.2"})
        text = server.ask_admin("/metrics")[1]
        for secret in (DOCTOR, "Zebediah", "Patient", "night-shift", "198.51.100.2", "127.0.0.1", "user_id"):
            assert secret not in text, secret


def request_on_all_connections(server: Running, database: CasesDatabase) -> None:
    """Make the service query the database on both connections at the same time."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(THREADS))
        writer = stack.enter_context(database.locked())
        responses = [pool.submit(server.get, TARGET) for _ in range(THREADS)]
        wait_until(lambda: len(database.waiting) == THREADS)
        writer.rollback()
        assert [response.result()[0].status for response in responses] == [200] * THREADS
