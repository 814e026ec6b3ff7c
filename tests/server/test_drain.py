"""The end of a process: what it was asked by then is answered, and what takes too long is cut off."""

import contextlib
import http.client
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest
from psycopg2.extensions import make_dsn

from tests.support.factories import DOCTOR, CasesDatabase, case, execute
from tests.support.processes import COMMAND, TIMEOUT_SECONDS, Running, running_on, serve, wait_until

# The table's layout has no say in any of this.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

ADMIN = {"MEDMITRA_ADMIN_LISTEN": "127.0.0.1:0"}
URL = "/cases/all_cases"
ASKED = f"{URL}?user_id={DOCTOR}"
REQUEST = f"GET {ASKED} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
# Answered without the database, which is not there for anybody while the table is locked.
BAD_REQUEST = f"GET {URL} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
# Within so many the process has ended, whatever it had to answer.
DRAIN_SECONDS = 25
IN_FLIGHT = "medmitra_http_requests_in_flight"
BAD_REQUESTS = f'medmitra_http_request_seconds_count{{route="{URL}",status="400"}}'


@pytest.fixture
def server(database: CasesDatabase) -> Iterator[Running]:
    """The service with two threads, and time for a query that takes long."""
    with serve(patient(database), MEDMITRA_THREADS="2", **ADMIN) as server:
        yield server


def patient(database: CasesDatabase) -> str:
    """The service's connection string, for queries that may take 20 s."""
    return make_dsn(database.service_dsn, options="-c statement_timeout=20000")


def drains(server: Running) -> None:
    """Wait until it drains."""
    wait_until(lambda: server.ask_admin("/readyz") == (503, '{"detail":"draining"}'))


def refuses(server: Running) -> bool:
    """Whether nobody listens any more."""
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def ask_slowly(server: Running, target: str = ASKED) -> socket.socket:
    """Ask, and wait for the answer without taking it."""
    connection = socket.socket()
    connection.settimeout(TIMEOUT_SECONDS)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)
    connection.connect((server.host, server.port))
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nX-Request-ID: slow\r\n\r\n".encode())
    assert connection.recv(1, socket.MSG_PEEK)
    return connection


def receive(connection: socket.socket) -> tuple[http.client.HTTPResponse, Any]:
    """The next answer on a connection, and what its JSON holds."""
    with closing(http.client.HTTPResponse(connection)) as response:
        response.begin()
        return response, json.loads(response.read())


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, 8), (signal.SIGINT, 0), (signal.SIGHUP, 0)])
def test_all_that_was_asked_is_answered(
    server: Running, database: CasesDatabase, number: signal.Signals, seconds: int
) -> None:
    mine = case()
    long_read = DOCTOR[:-1] + "5"
    database.add(mine)
    database.add_many([long_read], 1_900)
    execute(
        database.owner,
        f"UPDATE {database.layout.relation} SET case_summary = repeat('words ', 800) WHERE user_id = %s",
        [long_read],
    )
    with (
        closing(ask_slowly(server, ASKED.replace(DOCTOR, long_read))) as slow,
        database.locked() as writer,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = [pool.submit(server.get, ASKED) for _ in range(8)]
        # Two of them are worked on, and six wait for a thread.
        wait_until(lambda: len(database.waiting) == 2 and server.metric(IN_FLIGHT) == 9)
        begun = time.monotonic()
        server.process.send_signal(number)
        drains(server)
        wait_until(lambda: refuses(server))
        execute(writer, "SELECT pg_sleep(%s)", [seconds])
        assert not any(answer.done() for answer in answers)
        writer.rollback()
        for answer in answers:
            response, body = answer.result()
            assert response.status == 200
            assert response.headers["Connection"] == "close"
            assert [found["case_id"] for found in json.loads(body)["cases"]] == [mine["case_id"]]
        response, body = receive(slow)
        assert int(response.headers["Content-Length"]) > 8_000_000
        assert len(body["cases"]) == 1_900
        assert server.wait_for_its_end() == 0
        assert time.monotonic() - begun < DRAIN_SECONDS
    assert "Traceback" not in server.printed
    assert "cut off" not in server.printed


def test_a_long_list_is_sent_to_its_end(server: Running, database: CasesDatabase) -> None:
    database.add_many([DOCTOR], 40_000)
    with closing(ask_slowly(server)) as slow:
        server.process.send_signal(signal.SIGTERM)
        drains(server)
        assert len(receive(slow)[1]["cases"]) == 40_000
    assert server.wait_for_its_end() == 0
    assert audited(server, "slow") == ("ok", 40_000)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes, or resets, the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            received += piece
    return received


def audited(server: Running, request_id: str) -> tuple[str, int]:
    """The outcome, and the number of cases."""
    (line,) = (line for line in server.printed.splitlines() if f'"request_id":"{request_id}"' in line)
    found = json.loads(line)
    return found["outcome"], found["cases"]


def test_a_long_list_that_takes_too_long_is_broken_off(database: CasesDatabase) -> None:
    database.add_many([DOCTOR], 40_000)
    with (
        serve(database.service_dsn, MEDMITRA_DRAIN_SECONDS="0.2") as server,
        closing(ask_slowly(server)) as slow,
    ):
        assert server.end() == 1
        assert not rest(slow).endswith(b"0\r\n\r\n")
    outcome, cases = audited(server, "slow")
    assert outcome == "broken_off"
    assert 0 < cases < 40_000
    server.wait_for("WARNING .*clients cut off before their responses were complete: 1")


def test_a_second_signal_ends_it_at_once(server: Running, database: CasesDatabase) -> None:
    with database.locked(), ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(server.get, ASKED) for _ in range(3)]
        wait_until(lambda: len(database.waiting) == 2 and server.metric(IN_FLIGHT) == 3)
        server.process.send_signal(signal.SIGTERM)
        drains(server)
        begun = time.monotonic()
        for _ in range(3):  # and the third changes nothing
            server.process.send_signal(signal.SIGTERM)
        assert server.wait_for_its_end() == 1
        assert time.monotonic() - begun < DRAIN_SECONDS / 5
        for answer in answers:
            assert isinstance(answer.exception(), http.client.RemoteDisconnected | ConnectionResetError)
    server.wait_for("WARNING .*clients cut off before their responses were complete: 3")
    assert server.printed.count('"outcome":"cut_off","status":null,"cases":0') == 2  # the third had not begun
    assert "Traceback" not in server.printed


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_connection_that_was_kept_gets_an_answer_and_then_ends(
    server: Running, database: CasesDatabase, version: str
) -> None:
    request = BAD_REQUEST.replace(b"1.1\r\n", version.encode() + b"\r\nConnection: keep-alive\r\n")
    with server.connect() as kept, database.locked() as writer, ThreadPoolExecutor(1) as pool:
        kept.sendall(request)
        assert connection_headers(kept) in ([], ["keep-alive"])
        other = pool.submit(server.get, ASKED)
        wait_until(lambda: database.waiting)
        server.process.send_signal(signal.SIGTERM)
        drains(server)
        kept.sendall(request)
        assert connection_headers(kept) == ["close"]
        assert kept.recv(1) == b""
        writer.rollback()
        assert other.result()[0].status == 200
    assert server.wait_for_its_end() == 0


def connection_headers(connection: socket.socket) -> list[str]:
    """What the next answer says of the connection."""
    response, body = receive(connection)
    assert response.status == 400
    assert list(body) == ["detail"]
    return [value.lower() for value in response.headers.get_all("Connection", [])]


def test_a_heap_of_requests_is_answered_to_its_end(server: Running, database: CasesDatabase) -> None:
    with server.connect() as heap, database.locked() as writer:
        heap.sendall(REQUEST + BAD_REQUEST)
        wait_until(lambda: database.waiting)
        server.process.send_signal(signal.SIGTERM)
        drains(server)
        writer.rollback()
        first, second = rest(heap).split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 OK\r\n")
    assert b"\r\nConnection: close\r\n" not in first
    assert second.startswith(b"400 BAD REQUEST\r\n")
    assert b"\r\nConnection: close\r\n" in second
    assert server.wait_for_its_end() == 0


@pytest.mark.parametrize("asked_before", [0, 1])
@pytest.mark.usefixtures("database")
def test_who_connected_just_before_is_answered(server: Running, asked_before: int) -> None:
    for _ in range(asked_before):  # with none, it may not have begun to handle signals
        assert server.get(ASKED)[0].status == 200
    with ExitStack() as stack:
        before = [stack.enter_context(server.connect()) for _ in range(20)]
        server.process.send_signal(signal.SIGTERM)
        for connection in before:
            connection.sendall(REQUEST)
        for connection in before:
            response, body = receive(connection)
            assert (response.status, body) == (200, {"cases": []})
    assert server.wait_for_its_end() == 0


def test_connections_that_ask_nothing_do_not_keep_it(server: Running, database: CasesDatabase) -> None:
    database.add(case())
    with server.connect() as silent, server.connect() as kept:
        kept.sendall(REQUEST + b"\r\n")  # a line break too many, as old clients sent it
        assert len(receive(kept)[1]["cases"]) == 1
        begun = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - begun < DRAIN_SECONDS / 5
        assert (kept.recv(1), silent.recv(1)) == (b"", b"")


def test_a_request_that_does_not_come_to_its_end_is_not_waited_for(
    server: Running, database: CasesDatabase
) -> None:
    database.add(case())
    with server.connect() as slow, server.connect() as stalled:
        for connection in (slow, stalled):
            connection.sendall(REQUEST + REQUEST[:30])
            assert len(receive(connection)[1]["cases"]) == 1
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        drains(server)
        slow.sendall(REQUEST[30:])
        assert len(receive(slow)[1]["cases"]) == 1
        assert server.wait_for_its_end() == 0
        assert time.monotonic() - begun < DRAIN_SECONDS / 5
    assert "cut off" not in server.printed


def test_a_socket_that_was_handed_over_goes_on_for_the_next_process(
    database: CasesDatabase, listening: socket.socket
) -> None:
    serve = (COMMAND, "serve")
    settings = {"DATABASE_URL": patient(database), **ADMIN}
    with (
        database.locked() as writer,
        running_on(listening, *serve, **settings) as first,
        first.connect() as waiting,
    ):
        waiting.sendall(REQUEST)
        wait_until(lambda: database.waiting)
        first.process.send_signal(signal.SIGTERM)
        drains(first)
        with first.connect() as early:
            early.sendall(BAD_REQUEST)
            with running_on(listening, *serve, **settings) as second, second.connect() as late:
                late.sendall(BAD_REQUEST)
                assert connection_headers(early) == []
                assert connection_headers(late) == []
                wait_until(lambda: second.metric(BAD_REQUESTS) == 2)
                writer.rollback()
                assert receive(waiting)[1] == {"cases": []}
                assert first.wait_for_its_end() == 0
