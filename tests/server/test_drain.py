"""Shutdown: the server answers the requests that it has received, and cuts off those that take too long."""

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

from tests.support.factories import DOCTOR, CasesDatabase, case, execute
from tests.support.processes import COMMAND, TIMEOUT_SECONDS, Running, running_on, serve, wait_until

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

ADMIN = {"MEDMITRA_ADMIN_LISTEN": "127.0.0.1:0"}
URL = "/cases/all_cases"
CASES_URL = f"{URL}?user_id={DOCTOR}"
REQUEST = f"GET {CASES_URL} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
# This is answered without the database, so it also works while the table is locked.
BAD_REQUEST = f"GET {URL} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
# The process ends within this time, whatever its requests are.
DRAIN_SECONDS = 25
IN_FLIGHT = "medmitra_http_requests_in_flight"
BAD_REQUESTS = f'medmitra_http_request_seconds_count{{error="",route="{URL}",status="400"}}'


@pytest.fixture
def server(database: CasesDatabase) -> Iterator[Running]:
    """The service with two requests at a time."""
    with serve(database.service_dsn, MEDMITRA_THREADS="2", **ADMIN) as server:
        yield server


def wait_until_draining(server: Running) -> None:
    """Wait until the server drains."""
    wait_until(lambda: server.ask_admin("/readyz") == (503, '{"detail":"draining"}'))


def refuses_connections(server: Running) -> bool:
    """Whether the port of the server refuses connections."""
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def wait_for_response(server: Running, target: str = CASES_URL) -> socket.socket:
    """Send a request, and wait for its response without reading it."""
    connection = socket.socket()
    connection.settimeout(TIMEOUT_SECONDS)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)
    connection.connect((server.host, server.port))
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nX-Request-ID: slow\r\n\r\n".encode())
    assert connection.recv(1, socket.MSG_PEEK)
    return connection


def receive(connection: socket.socket) -> tuple[http.client.HTTPResponse, Any]:
    """Read the next response on a connection; returns it and its decoded JSON body."""
    with closing(http.client.HTTPResponse(connection)) as response:
        response.begin()
        return response, json.loads(response.read())


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, 3), (signal.SIGINT, 0), (signal.SIGHUP, 0)])
def test_a_draining_server_answers_all_received_requests(
    server: Running, database: CasesDatabase, number: signal.Signals, seconds: int
) -> None:
    added = case()
    other_doctor = DOCTOR[:-1] + "5"
    database.add(added)
    database.add_many([other_doctor], 400)
    execute(
        database.owner,
        f"UPDATE {database.layout.relation} SET case_summary = repeat('words ', 800) WHERE user_id = %s",
        [other_doctor],
    )
    with (
        closing(wait_for_response(server, CASES_URL.replace(DOCTOR, other_doctor))) as slow,
        database.locked() as writer,
        ThreadPoolExecutor(8) as pool,
    ):
        futures = [pool.submit(server.get, CASES_URL) for _ in range(8)]
        # Two of the requests are in progress, and six wait for their turn.
        wait_until(lambda: len(database.waiting) == 2 and server.metric(IN_FLIGHT) == 9)
        begun = time.monotonic()
        server.process.send_signal(number)
        wait_until_draining(server)
        wait_until(lambda: refuses_connections(server))
        execute(writer, "SELECT pg_sleep(%s)", [seconds])
        assert not any(future.done() for future in futures)
        writer.rollback()
        for future in futures:
            response, body = future.result()
            assert response.status == 200
            assert response.headers["Connection"] == "close"
            assert [found["case_id"] for found in json.loads(body)["cases"]] == [added["case_id"]]
        response, body = receive(slow)
        assert int(response.headers["Content-Length"]) > 2_000_000
        assert len(body["cases"]) == 400
        assert server.wait_for_its_end() == 0
        assert time.monotonic() - begun < DRAIN_SECONDS
    assert "Traceback" not in server.printed
    assert "cut off" not in server.printed


def test_a_draining_server_sends_a_long_list_completely(server: Running, database: CasesDatabase) -> None:
    database.add_many([DOCTOR], 40_000)
    with closing(wait_for_response(server)) as slow:
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        draining_at = time.monotonic()
        wait_until(lambda: time.monotonic() > draining_at + 8)  # by itself, waitress ends threads after 5 s
        assert len(receive(slow)[1]["cases"]) == 40_000
    assert server.wait_for_its_end() == 0
    assert audit_values(server, "slow") == ("ok", 40_000)


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes or resets the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 20):
            received += chunk
    return received


def audit_values(server: Running, request_id: str) -> tuple[str, int]:
    """The outcome and the number of cases in the audit line of the request."""
    (line,) = (line for line in server.printed.splitlines() if f'"request_id":"{request_id}"' in line)
    found = json.loads(line)
    return found["outcome"], found["cases"]


def test_a_long_list_is_cut_off_after_the_drain_timeout(database: CasesDatabase) -> None:
    database.add_many([DOCTOR], 40_000)
    with (
        serve(database.service_dsn, MEDMITRA_DRAIN_SECONDS="0.2") as server,
        closing(wait_for_response(server)) as slow,
    ):
        assert server.end() == 1
        assert not read_to_end(slow).endswith(b"0\r\n\r\n")
    outcome, cases = audit_values(server, "slow")
    assert outcome == "broken_off"
    assert 0 < cases < 40_000
    server.wait_for("WARNING .*clients cut off before their responses were complete: 1")


def test_a_second_signal_ends_the_process_at_once(server: Running, database: CasesDatabase) -> None:
    with database.locked(), ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(server.get, CASES_URL) for _ in range(3)]
        wait_until(lambda: len(database.waiting) == 2 and server.metric(IN_FLIGHT) == 3)
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        begun = time.monotonic()
        for _ in range(3):  # the later ones have no effect
            server.process.send_signal(signal.SIGTERM)
        assert server.wait_for_its_end() == 1
        assert time.monotonic() - begun < DRAIN_SECONDS / 5
        for future in futures:
            assert isinstance(future.exception(), http.client.RemoteDisconnected | ConnectionResetError)
    server.wait_for("WARNING .*clients cut off before their responses were complete: 3")
    # The third request had not begun.
    assert server.printed.count('"outcome":"cut_off","status":null,"cases":0') == 2
    assert "Traceback" not in server.printed


@pytest.mark.parametrize("options", [b"keep-alive", b"TE, Keep-Alive"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_kept_alive_connection_is_closed_after_one_more_response(
    server: Running, database: CasesDatabase, version: str, options: bytes
) -> None:
    request = BAD_REQUEST.replace(b"1.1\r\n", version.encode() + b"\r\nConnection: " + options + b"\r\n")
    with server.connect() as kept, database.locked() as writer, ThreadPoolExecutor(1) as pool:
        kept.sendall(request)
        assert connection_headers(kept) in ([], ["keep-alive"])
        other = pool.submit(server.get, CASES_URL)
        wait_until(lambda: database.waiting)
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        kept.sendall(request)
        assert connection_headers(kept) == ["close"]
        assert kept.recv(1) == b""
        writer.rollback()
        assert other.result()[0].status == 200
    assert server.wait_for_its_end() == 0


def connection_headers(connection: socket.socket) -> list[str]:
    """The values of ``Connection`` in the next response, which is a 400."""
    response, body = receive(connection)
    assert response.status == 400
    assert list(body) == ["detail"]
    return [value.lower() for value in response.headers.get_all("Connection", [])]


def test_pipelined_requests_are_all_answered(server: Running, database: CasesDatabase) -> None:
    with server.connect() as connection, database.locked() as writer:
        connection.sendall(REQUEST + BAD_REQUEST)
        wait_until(lambda: database.waiting)
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        writer.rollback()
        first, second = read_to_end(connection).split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 OK\r\n")
    assert b"\r\nConnection: close\r\n" not in first
    assert second.startswith(b"400 BAD REQUEST\r\n")
    assert b"\r\nConnection: close\r\n" in second
    assert server.wait_for_its_end() == 0


@pytest.mark.parametrize("requests_before", [0, 1])
@pytest.mark.usefixtures("database")
def test_clients_that_connected_before_the_signal_are_answered(server: Running, requests_before: int) -> None:
    for _ in range(requests_before):  # without a request, the server may not handle signals yet
        assert server.get(CASES_URL)[0].status == 200
    with ExitStack() as stack:
        before = [stack.enter_context(server.connect()) for _ in range(20)]
        server.process.send_signal(signal.SIGTERM)
        for connection in before:
            connection.sendall(REQUEST)
        for connection in before:
            response, body = receive(connection)
            assert (response.status, body) == (200, {"cases": []})
    assert server.wait_for_its_end() == 0


def test_idle_connections_do_not_delay_the_end(server: Running, database: CasesDatabase) -> None:
    database.add(case())
    with server.connect() as silent, server.connect() as kept:
        kept.sendall(REQUEST + b"\r\n")  # with an extra line break, as old clients send it
        assert len(receive(kept)[1]["cases"]) == 1
        begun = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - begun < DRAIN_SECONDS / 5
        assert (kept.recv(1), silent.recv(1)) == (b"", b"")


def test_an_incomplete_request_does_not_delay_the_end(server: Running, database: CasesDatabase) -> None:
    database.add(case())
    with server.connect() as slow, server.connect() as stalled:
        for connection in (slow, stalled):
            connection.sendall(REQUEST + REQUEST[:30])
            assert len(receive(connection)[1]["cases"]) == 1
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_until_draining(server)
        slow.sendall(REQUEST[30:])
        assert len(receive(slow)[1]["cases"]) == 1
        assert server.wait_for_its_end() == 0
        assert time.monotonic() - begun < DRAIN_SECONDS / 5
    assert "cut off" not in server.printed


def test_the_next_process_serves_an_inherited_socket_during_a_drain(
    database: CasesDatabase, listening: socket.socket
) -> None:
    serve = (COMMAND, "serve")
    settings = {"DATABASE_URL": database.service_dsn, **ADMIN}
    with (
        database.locked() as writer,
        running_on(listening, *serve, **settings) as first,
        first.connect() as waiting,
    ):
        waiting.sendall(REQUEST)
        wait_until(lambda: database.waiting)
        first.process.send_signal(signal.SIGTERM)
        wait_until_draining(first)
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
