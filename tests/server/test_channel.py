"""Connections of the real server: requests that are kept alive, split, pipelined or cut off."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.support.factories import DOCTOR, SESSIONS, CasesDatabase, case, execute
from tests.support.processes import TIMEOUT_SECONDS, Running, serve, wait_until

# These tests do not depend on the table layout.
pytestmark = [
    pytest.mark.parametrize("layout_database", ["own_table"], indirect=True),
    pytest.mark.usefixtures("layout_database"),
]

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"
REQUEST = f"GET {CASES_URL} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    """The service with two requests at a time, so that a few clients are enough to make others wait."""
    with serve(layout_database.service_dsn, MEDMITRA_THREADS="2") as server:
        yield server


def case_ids(body: bytes | bytearray) -> list[str]:
    """The case ids in the body of a response."""
    return [found["case_id"] for found in json.loads(body)["cases"]]


def receive(connection: socket.socket, method: str = "GET") -> bytes:
    """Read the body of the next response. More responses may follow on the connection."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    assert response.status == 200
    return response.read()


@contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    with closing(server.connect()) as connection:
        yield connection


def serve_others(server: Running) -> None:
    """Make the server answer requests on other connections."""
    for _ in range(20):
        assert server.get(CASES_URL)[0].status == 200


def test_a_connection_serves_many_requests(server: Running, database: CasesDatabase) -> None:
    expected: list[str] = []
    with connected(server) as connection:
        for _ in range(50):
            connection.sendall(REQUEST)
            assert case_ids(receive(connection)) == expected
            added = case()
            database.add(added)
            expected.append(added["case_id"])


def test_a_connection_stays_open_while_others_are_served(server: Running, database: CasesDatabase) -> None:
    database.add(case())
    with connected(server) as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            assert len(case_ids(receive(connection))) == 1
            serve_others(server)


@pytest.mark.parametrize("end", [1, 30, len(REQUEST) - 1])
def test_a_request_may_arrive_in_two_parts_after_another_one(
    server: Running, database: CasesDatabase, end: int
) -> None:
    database.add(case())
    with connected(server) as connection:
        connection.sendall(REQUEST + REQUEST[:end])
        assert len(case_ids(receive(connection))) == 1
        serve_others(server)
        connection.sendall(REQUEST[end:])
        assert len(case_ids(receive(connection))) == 1


def test_a_short_response_arrives_in_one_read(server: Running, database: CasesDatabase) -> None:
    database.add(case())
    with connected(server) as connection:
        for _ in range(50):
            connection.sendall(REQUEST)
            head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert len(case_ids(body)) == 1


def test_pipelined_requests_are_answered_in_order(server: Running, database: CasesDatabase) -> None:
    doctors = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(20)]
    cases = [case(user_id=doctor) for doctor in doctors]
    database.add(*cases)
    with connected(server) as connection:
        connection.sendall(b"".join(REQUEST.replace(DOCTOR.encode(), doctor.encode()) for doctor in doctors))
        with connection.makefile("rb") as stream:
            for expected in cases:
                assert case_ids(read_one(stream)) == [expected["case_id"]]


def read_one(stream: BinaryIO) -> bytes:
    """Read the body of one response, which has a Content-Length, from a stream of several."""
    length = 0
    while (line := stream.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return stream.read(length)


def test_many_more_clients_than_requests_at_a_time_are_all_served(
    server: Running, database: CasesDatabase
) -> None:
    database.add(case(), case())

    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(64)]
        for _ in range(5):
            for connection in clients:
                connection.sendall(REQUEST)
            for connection in clients:
                assert len(case_ids(receive(connection))) == 2


@pytest.mark.usefixtures("database")
def test_pipelining_clients_do_not_block_others(server: Running) -> None:
    pipelined = 500  # requests sent at once, on as many connections as there are requests at a time
    received = [0, 0]

    def send_pipelined(number: int) -> None:
        with connected(server) as connection, connection.makefile("rb") as stream:
            connection.sendall(REQUEST * pipelined)
            for _ in range(pipelined):
                assert case_ids(read_one(stream)) == []
                received[number] += 1

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(send_pipelined, number) for number in range(2)]
        wait_until(lambda: all(received))
        assert server.get(CASES_URL)[0].status == 200
        assert max(received) < pipelined
        for client in clients:
            client.result(TIMEOUT_SECONDS)
    assert received == [pipelined, pipelined]


def test_a_slow_request_gets_the_full_wait_for_the_database() -> None:
    # The wait for the database starts when the request has arrived completely.
    wait = {"MEDMITRA_DATABASE_WAIT_SECONDS": "0.4"}
    with serve("host=127.0.0.1 port=1", **wait) as server, connected(server) as slow:
        slow.sendall(REQUEST[:30])
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > 0.5)
        slow.sendall(REQUEST[30:])
        begun = time.monotonic()
        with closing(http.client.HTTPResponse(slow)) as response:
            response.begin()
            assert response.status == 500
        assert time.monotonic() - begun > 0.2


@pytest.mark.parametrize("length", [None, 0, 5])
@pytest.mark.usefixtures("database")
def test_a_request_that_expects_100_continue_is_answered(server: Running, length: int | None) -> None:
    expecting = b"Host: x\r\nExpect: 100-continue\r\n"
    if length is not None:
        expecting += f"Content-Length: {length}\r\n".encode()
    with connected(server) as connection:
        for _ in range(2):
            connection.sendall(REQUEST.replace(b"Host: x\r\n", expecting))
            if length:
                assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
                connection.sendall(b"x" * length)
            assert case_ids(receive(connection)) == []


@pytest.mark.parametrize("last_bytes", [b"", REQUEST, REQUEST[:20]])
@pytest.mark.usefixtures("database")
def test_clients_that_disconnect_leak_no_descriptors(server: Running, last_bytes: bytes) -> None:
    server.get(CASES_URL)
    before = descriptors(server)
    for _ in range(20):
        with connected(server) as connection:
            connection.sendall(REQUEST)
            receive(connection)
            connection.sendall(last_bytes)
    # The first requests may have opened database connections.
    wait_until(lambda: descriptors(server) <= before + 1)
    assert server.get(CASES_URL)[0].status == 200


def descriptors(server: Running) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


class TestLongLists:
    """About 13 MB of cases: more than the server buffers for a client."""

    @pytest.fixture(autouse=True)
    def _many_cases(self, database: CasesDatabase) -> None:
        database.add_many([DOCTOR], 40_000)

    def test_a_long_list_arrives_complete(self, server: Running) -> None:
        response, body = server.get(CASES_URL)
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert len(set(case_ids(body))) == 40_000

    def test_http_1_0_gets_a_long_list_without_chunks(self, server: Running) -> None:
        response = server.send(f"GET {CASES_URL} HTTP/1.0\r\n\r\n".encode())
        head, _, body = response.partition(b"\r\n\r\n")
        assert b"Transfer-Encoding" not in head
        assert len(case_ids(body)) == 40_000

    def test_head_of_a_long_list_has_no_body(self, server: Running) -> None:
        response = server.send(REQUEST.replace(b"GET", b"HEAD"))
        head, _, body = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"Content-Length" not in head
        assert body == b""

    def test_a_client_that_reads_no_data_is_disconnected(self, database: CasesDatabase) -> None:
        settings = {"MEDMITRA_THREADS": "1", "MEDMITRA_KEEPALIVE_SECONDS": "1"}
        with (
            serve(database.service_dsn, **settings) as server,
            connected(server) as stalled,
        ):
            stalled.sendall(REQUEST)
            stalled.recv(100)
            server.wait_for("Client disconnected while serving")
            assert server.get(CASES_URL.replace(DOCTOR, DOCTOR[:-1] + "7"))[0].status == 200

    def test_a_database_failure_makes_the_response_incomplete(
        self, server: Running, database: CasesDatabase
    ) -> None:
        with closing(http.client.HTTPConnection(server.host, server.port, timeout=TIMEOUT_SECONDS)) as client:
            client.request("GET", CASES_URL)
            response = client.getresponse()
            assert response.status == 200
            received = response.read(100)
            database.terminate_sessions()
            with pytest.raises(http.client.IncompleteRead):
                received += response.read()
        assert server.get(CASES_URL)[0].status == 200

    def test_a_database_failure_makes_an_http_1_0_body_invalid(
        self, server: Running, database: CasesDatabase
    ) -> None:
        with connected(server) as connection:
            connection.sendall(f"GET {CASES_URL} HTTP/1.0\r\n\r\n".encode())
            response = connection.recv(100)
            database.terminate_sessions()
            while received := connection.recv(1 << 20):
                response += received
        with pytest.raises(json.JSONDecodeError):
            json.loads(response.partition(b"\r\n\r\n")[2])

    def test_a_client_that_disconnects_frees_its_place_and_session(
        self, server: Running, database: CasesDatabase
    ) -> None:
        for _ in range(4):  # twice as many as there are requests at a time
            with connected(server) as connection:
                connection.sendall(REQUEST)
                connection.recv(100)
        busy_sessions = f"SELECT 1 {SESSIONS} AND state <> 'idle'"
        wait_until(lambda: not execute(database.owner, busy_sessions))
        assert server.get(CASES_URL)[0].status == 200

    def test_a_long_list_needs_little_memory_if_the_client_stalls(self, database: CasesDatabase) -> None:
        database.add_many([DOCTOR], 60_000)
        stalled = f"SELECT 1 {SESSIONS} AND state = 'idle in transaction' AND now() - state_change > '0.2s'"
        with serve(database.service_dsn) as server:
            for _ in range(20):
                server.get(CASES_URL.replace(DOCTOR, DOCTOR[:-1] + "7"))
            idle = memory_kb(server, "VmRSS")
            with connected(server) as connection:
                connection.sendall(f"GET {CASES_URL} HTTP/1.0\r\n\r\n".encode())
                response = bytearray(connection.recv(100))
                wait_until(lambda: execute(database.owner, stalled))
                while received := connection.recv(1 << 20):
                    response += received
            assert len(case_ids(response.partition(b"\r\n\r\n")[2])) == 100_000
            assert memory_kb(server, "VmHWM") - idle <= 32_000


def memory_kb(server: Running, name: str) -> int:
    """Return a value of /proc/PID/status about the memory of the server, in kB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0])
