"""Slow clients: no other client waits for them, and no clock makes the server misjudge them."""

import http.client
import json
import re
import socket
import sys
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from tests.support.factories import DOCTOR, SESSIONS, CasesDatabase, case, execute
from tests.support.processes import (
    TIMEOUT_SECONDS,
    Running,
    raw_request,
    receive_all,
    running,
    serve,
    stalled,
    wait_until,
)

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

SHORT_LIST = f"/cases/all_cases?user_id={DOCTOR}"
LONG_LIST = SHORT_LIST.replace(DOCTOR, DOCTOR[:-1] + "5")
STALLED = f"SELECT 1 {SESSIONS} AND state = 'idle in transaction' AND now() - state_change > '0.2s'"

# The command with a wall clock that is wrong by the seconds in a file.
WRONG_CLOCK = """
import pathlib, sys, time
right, offset = time.time, pathlib.Path(sys.argv.pop(1))
time.time = lambda: right() + float(offset.read_text())
sys.argv[0] = "medmitra-cases"
from medmitra_cases.cli.main import main
main()
"""


@pytest.fixture(autouse=True)
def _cases(database: CasesDatabase) -> None:
    """Insert a short list, and a long one of 13 MB, more than the server and the kernel hold for a client."""
    database.add(case())
    database.add_many([DOCTOR[:-1] + "5"], 40_000)


def test_short_lists_do_not_wait_for_stalled_streams(database: CasesDatabase) -> None:
    with (
        serve(database.service_dsn, MEDMITRA_THREADS="2") as server,
        stalled(server, raw_request(LONG_LIST, "1.0"), 6) as clients,
    ):
        # There are as many streams as requests at a time; the other streams wait for these.
        wait_until(lambda: len(execute(database.owner, STALLED)) == 2)
        for _ in range(50):
            assert server.get(SHORT_LIST)[0].status == 200
        assert len(execute(database.owner, STALLED)) == 2
        first, _ = [client for client in clients if has_data(client)]
        assert receive_all(first).count(b'"case_id"') == 40_000
        wait_until(lambda: sum(map(has_data, clients)) == 2)


def has_data(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.settimeout(TIMEOUT_SECONDS)


def test_short_lists_do_not_wait_for_stalled_pipelines(database: CasesDatabase) -> None:
    doctor = DOCTOR[:-1] + "6"
    database.add_many([doctor], 300)
    # As many as the server reads at once: 10 MB of responses.
    pipeline = 90 * raw_request(SHORT_LIST.replace(DOCTOR, doctor))
    with (
        serve(database.service_dsn, MEDMITRA_THREADS="2") as server,
        stalled(server, pipeline, 4) as clients,
    ):
        wait_until(lambda: all(map(has_data, clients)))
        for _ in range(50):
            assert server.get(SHORT_LIST)[0].status == 200
        # Each client gets all responses once it reads.
        for client in clients:
            with client.makefile("rb") as responses:
                for _ in range(90):
                    assert responses.readline() == b"HTTP/1.1 200 OK\r\n"
                    length = int(http.client.parse_headers(responses)["Content-Length"])
                    assert len(json.loads(responses.read(length))["cases"]) == 300


def test_documentation_is_refused_if_its_readers_use_too_much_memory(database: CasesDatabase) -> None:
    path = "/docs/swagger-ui-bundle.js"  # 1.5 MB
    with serve(database.service_dsn) as server, stalled(server, raw_request(path), 150):
        wait_until(lambda: server.get(path)[0].status == 500)
        response, body = server.get(path)
        assert response.headers["Content-Type"] == "application/json"
        name = response.headers["X-Request-ID"]
        assert json.loads(body) == {"detail": f"Internal server error: overloaded (request id {name})"}
        assert server.get(SHORT_LIST)[0].status == 200
    assert f"{name}" in server.printed


@pytest.fixture
def offset(tmp_path: Path) -> Path:
    """The file with the error of the wall clock, in seconds."""
    path = tmp_path / "offset"
    path.write_text("0")
    return path


def serve_with(
    offset: Path, database: CasesDatabase, keepalive_seconds: int
) -> AbstractContextManager[Running]:
    return running(
        *(sys.executable, "-c", WRONG_CLOCK, offset, "serve", "--listen", "127.0.0.1:0"),
        DATABASE_URL=database.service_dsn,
        MEDMITRA_KEEPALIVE_SECONDS=str(keepalive_seconds),
    )


def set_offset(offset: Path, seconds: int) -> None:
    offset.with_suffix(".new").write_text(str(seconds))
    offset.with_suffix(".new").rename(offset)


def turn_clock(offset: Path, seconds: int, server: Running) -> None:
    """Set the error of the wall clock, and wait until the I/O loop must have seen it."""
    set_offset(offset, seconds)
    for _ in range(20):
        assert server.get(SHORT_LIST)[0].status == 200


def test_a_clock_that_jumps_ahead_cuts_no_stream_off(database: CasesDatabase, offset: Path) -> None:
    with (
        serve_with(offset, database, 60) as server,
        stalled(server, raw_request(LONG_LIST, "1.0")) as (client,),
    ):
        wait_until(lambda: execute(database.owner, STALLED))
        turn_clock(offset, 3_600, server)
        assert receive_all(client).count(b'"case_id"') == 40_000


def test_a_clock_that_jumps_changes_nothing_for_idle_connections(
    database: CasesDatabase, offset: Path
) -> None:
    with (
        serve_with(offset, database, 60) as server,
        closing(http.client.HTTPConnection(server.host, server.port, timeout=TIMEOUT_SECONDS)) as client,
    ):
        client.request("GET", SHORT_LIST)
        assert client.getresponse().read()
        client.auto_open = False
        for seconds in (0, 3_600, -3_600):
            turn_clock(offset, seconds, server)
            client.request("GET", SHORT_LIST)
            assert client.getresponse().read()
            turn_clock(offset, seconds, server)
        assert server.end() == 0
    durations = re.findall(r'"duration_ms":([-0-9.]+)', server.printed)
    assert len(durations) > 100
    assert all(0 <= float(duration) < 1_000 * TIMEOUT_SECONDS for duration in durations)


@pytest.mark.parametrize("seconds", [3_600, -3_600])
def test_a_clock_that_jumps_changes_no_drain(database: CasesDatabase, offset: Path, seconds: int) -> None:
    with (
        serve_with(offset, database, 60) as server,
        stalled(server, raw_request(LONG_LIST, "1.0")) as (client,),
    ):
        wait_until(lambda: execute(database.owner, STALLED))
        server.process.terminate()
        server.wait_for("draining")
        set_offset(offset, seconds)
        assert receive_all(client).count(b'"case_id"') == 40_000
        assert server.wait_for_its_end() == 0


@pytest.mark.parametrize("seconds", [0, -3_600])
def test_a_silent_client_is_disconnected_whatever_the_clock_says(
    database: CasesDatabase, offset: Path, seconds: int
) -> None:
    with serve_with(offset, database, 3) as server, stalled(server, raw_request(LONG_LIST)):
        wait_until(lambda: execute(database.owner, STALLED))
        turn_clock(offset, seconds, server)
        wait_until(lambda: not execute(database.owner, f"SELECT 1 {SESSIONS} AND state <> 'idle'"))
        server.wait_for("Client disconnected while serving")
