"""Connections of the real server: requests one after the other, in pieces, in a heap, and cut off."""

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

from tests.support.factories import DOCTOR, CasesDatabase, case, execute
from tests.support.processes import TIMEOUT_SECONDS, Running, serve, wait_until

# The table's layout has no say in any of this.
pytestmark = [
    pytest.mark.parametrize("layout_database", ["own_table"], indirect=True),
    pytest.mark.usefixtures("layout_database"),
]

ASKED = f"/cases/all_cases?user_id={DOCTOR}"
REQUEST = f"GET {ASKED} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
SESSIONS = "FROM pg_stat_activity WHERE usename = 'medmitra_cases' AND datname = current_database()"


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    """The service with two threads, so that few clients already wait for one."""
    with serve(layout_database.service_dsn, MEDMITRA_THREADS="2") as server:
        yield server


def ids(body: bytes | bytearray) -> list[str]:
    """The case ids of an answer."""
    return [found["case_id"] for found in json.loads(body)["cases"]]


def receive(connection: socket.socket, method: str = "GET") -> bytes:
    """The body of the next answer on a connection that may bring more."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    assert response.status == 200
    return response.read()


@contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    with closing(server.connect()) as connection:
        yield connection


def answer_others(server: Running) -> None:
    """Let the server answer others meanwhile."""
    for _ in range(20):
        assert server.get(ASKED)[0].status == 200


def test_one_request_after_the_other(server: Running, database: CasesDatabase) -> None:
    mine: list[str] = []
    with connected(server) as connection:
        for _ in range(50):
            connection.sendall(REQUEST)
            assert ids(receive(connection)) == mine
            added = case()
            database.add(added)
            mine.append(added["case_id"])


def test_a_request_long_after_the_other(server: Running, database: CasesDatabase) -> None:
    database.add(case())
    with connected(server) as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            assert len(ids(receive(connection))) == 1
            answer_others(server)


@pytest.mark.parametrize("end", [1, 30, len(REQUEST) - 1])
def test_a_request_in_two_pieces_right_after_another(
    server: Running, database: CasesDatabase, end: int
) -> None:
    database.add(case())
    with connected(server) as connection:
        connection.sendall(REQUEST + REQUEST[:end])
        assert len(ids(receive(connection))) == 1
        answer_others(server)
        connection.sendall(REQUEST[end:])
        assert len(ids(receive(connection))) == 1


def test_a_whole_answer_leaves_in_one_piece(server: Running, database: CasesDatabase) -> None:
    database.add(case())
    with connected(server) as connection:
        for _ in range(50):
            connection.sendall(REQUEST)
            head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert len(ids(body)) == 1


def test_requests_in_a_heap_are_answered_in_order(server: Running, database: CasesDatabase) -> None:
    doctors = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(20)]
    cases = [case(user_id=doctor) for doctor in doctors]
    database.add(*cases)
    with connected(server) as connection:
        connection.sendall(b"".join(REQUEST.replace(DOCTOR.encode(), doctor.encode()) for doctor in doctors))
        with connection.makefile("rb") as answers:
            for expected in cases:
                assert ids(read_one(answers)) == [expected["case_id"]]


def read_one(answers: BinaryIO) -> bytes:
    """One answer with a Content-Length off a stream of several."""
    length = 0
    while (line := answers.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return answers.read(length)


def test_many_more_clients_than_threads_are_all_served(server: Running, database: CasesDatabase) -> None:
    database.add(case(), case())

    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(64)]
        for _ in range(5):
            for connection in clients:
                connection.sendall(REQUEST)
            for connection in clients:
                assert len(ids(receive(connection))) == 2


@pytest.mark.usefixtures("database")
def test_clients_that_never_pause_do_not_keep_others_waiting(server: Running) -> None:
    heap = 500  # requests, sent at once on as many connections as there are threads
    answered = [0, 0]

    def ask_without_a_pause(number: int) -> None:
        with connected(server) as connection, connection.makefile("rb") as answers:
            connection.sendall(REQUEST * heap)
            for _ in range(heap):
                assert ids(read_one(answers)) == []
                answered[number] += 1

    with ThreadPoolExecutor(2) as busy:
        clients = [busy.submit(ask_without_a_pause, number) for number in range(2)]
        wait_until(lambda: all(answered))
        assert server.get(ASKED)[0].status == 200
        assert max(answered) < heap
        for client in clients:
            client.result(TIMEOUT_SECONDS)
    assert answered == [heap, heap]


def test_a_request_that_comes_slowly_has_its_full_time() -> None:
    # The wait for the database counts from when the request had arrived, not from when it began to.
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
def test_who_expects_to_be_told_to_continue_is_answered(server: Running, length: int | None) -> None:
    expecting = b"Host: x\r\nExpect: 100-continue\r\n"
    if length is not None:
        expecting += f"Content-Length: {length}\r\n".encode()
    with connected(server) as connection:
        for _ in range(2):
            connection.sendall(REQUEST.replace(b"Host: x\r\n", expecting))
            if length:
                assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
                connection.sendall(b"x" * length)
            assert ids(receive(connection)) == []


@pytest.mark.parametrize("goodbye", [b"", REQUEST, REQUEST[:20]])
@pytest.mark.usefixtures("database")
def test_clients_that_leave_take_nothing_along(server: Running, goodbye: bytes) -> None:
    server.get(ASKED)
    before = descriptors(server)
    for _ in range(20):
        with connected(server) as connection:
            connection.sendall(REQUEST)
            receive(connection)
            connection.sendall(goodbye)
    # A worker that had not served anybody before may have opened its connection to the database.
    wait_until(lambda: descriptors(server) <= before + 1)
    assert server.get(ASKED)[0].status == 200


def descriptors(server: Running) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


class TestLongLists:
    """Some 13 MB of cases: more than the server holds for a reader."""

    @pytest.fixture(autouse=True)
    def _many_cases(self, database: CasesDatabase) -> None:
        database.add_many([DOCTOR], 40_000)

    def test_it_comes_whole(self, server: Running) -> None:
        response, body = server.get(ASKED)
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert len(set(ids(body))) == 40_000

    def test_http_1_0_gets_it_too(self, server: Running) -> None:
        answer = server.send(f"GET {ASKED} HTTP/1.0\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Transfer-Encoding" not in head
        assert len(ids(body)) == 40_000

    def test_head_has_no_body(self, server: Running) -> None:
        answer = server.send(REQUEST.replace(b"GET", b"HEAD"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"Content-Length" not in head
        assert body == b""

    def test_a_reader_who_takes_nothing_is_given_up(self, database: CasesDatabase) -> None:
        settings = {"MEDMITRA_THREADS": "1", "MEDMITRA_KEEPALIVE_SECONDS": "1"}
        with (
            serve(database.service_dsn, **settings) as server,
            connected(server) as stalled,
        ):
            stalled.sendall(REQUEST)
            stalled.recv(100)
            # The only thread is free for this one only once the other has been given up.
            assert server.get(ASKED.replace(DOCTOR, DOCTOR[:-1] + "7"))[0].status == 200
            assert server.end() == 0
        assert "Client disconnected while serving" in server.printed

    def test_the_database_fails_half_way(self, server: Running, database: CasesDatabase) -> None:
        with closing(http.client.HTTPConnection(server.host, server.port, timeout=TIMEOUT_SECONDS)) as client:
            client.request("GET", ASKED)
            response = client.getresponse()
            assert response.status == 200
            received = response.read(100)
            execute(database.owner, f"SELECT pg_terminate_backend(pid, 5000) {SESSIONS}")
            with pytest.raises(http.client.IncompleteRead):
                received += response.read()
        assert server.get(ASKED)[0].status == 200

    def test_the_database_fails_half_way_over_http_1_0(
        self, server: Running, database: CasesDatabase
    ) -> None:
        with connected(server) as connection:
            connection.sendall(f"GET {ASKED} HTTP/1.0\r\n\r\n".encode())
            answer = connection.recv(100)
            execute(database.owner, f"SELECT pg_terminate_backend(pid, 5000) {SESSIONS}")
            while received := connection.recv(1 << 20):
                answer += received
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer.partition(b"\r\n\r\n")[2])

    def test_a_reader_who_leaves_gives_its_thread_and_connection_back(
        self, server: Running, database: CasesDatabase
    ) -> None:
        for _ in range(4):  # twice as many as there are threads
            with connected(server) as connection:
                connection.sendall(REQUEST)
                connection.recv(100)
        reading = f"SELECT 1 {SESSIONS} AND state <> 'idle'"
        wait_until(lambda: not execute(database.owner, reading))
        assert server.get(ASKED)[0].status == 200

    def test_it_costs_little_memory_even_for_a_reader_who_stalls(self, database: CasesDatabase) -> None:
        database.add_many([DOCTOR], 60_000)
        stalled = f"SELECT 1 {SESSIONS} AND state = 'idle in transaction' AND now() - state_change > '0.2s'"
        with serve(database.service_dsn) as server:
            for _ in range(20):
                server.get(ASKED.replace(DOCTOR, DOCTOR[:-1] + "7"))
            idle = memory_kb(server, "VmRSS")
            with connected(server) as connection:
                connection.sendall(f"GET {ASKED} HTTP/1.0\r\n\r\n".encode())
                answer = bytearray(connection.recv(100))
                wait_until(lambda: execute(database.owner, stalled))
                while received := connection.recv(1 << 20):
                    answer += received
            assert len(ids(answer.partition(b"\r\n\r\n")[2])) == 100_000
            assert memory_kb(server, "VmHWM") - idle <= 32_000


def memory_kb(server: Running, name: str) -> int:
    """A figure of the process's memory in kB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0])
