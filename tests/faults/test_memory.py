"""The memory of a process is bounded, however large the cases are and however slowly clients read."""

import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.postgres import CASES, Postgres, postgres_with_cases
from tests.faults.service import TARGET, serving
from tests.support.factories import DOCTOR
from tests.support.processes import TIMEOUT_SECONDS, Running, raw_request, stalled, wait_until

pytestmark = pytest.mark.faults

# The bound that docs/operations.md states.
MAX_KB = 256 * 1024
IN_FLIGHT = "medmitra_http_requests_in_flight"
TEMPLATE = "00000000-0000-4000-8000-000000000000"
BUNDLE = "/docs/swagger-ui-bundle.js"


class Part(NamedTuple):
    """Some cases of a list. The texts are SQL expressions."""

    cases: int
    summary: str
    name: str = "'x'"


def text(size: int) -> str:
    """Return the SQL expression for a text of that many bytes."""
    return f"repeat('0123456789', {size // 10})"


# Each character takes four bytes in Python, and six in JSON.
CONTROL = "repeat(E'\\x01', 7000) || chr(128512)"

LISTS = {
    "10,000 x 100 kB": [Part(10_000, text(100_000))],
    "2,000 x 60 kB": [Part(2_000, text(60_000))],
    "2,000 x 10 kB": [Part(2_000, text(10_000))],
    "1,000 x 20 kB": [Part(1_000, text(20_000))],
    "500 x 10 kB": [Part(500, text(10_000))],
    "2,000 x 2 kB": [Part(2_000, text(2_000))],
    "20 x 1 MB": [Part(20, text(1_000_000))],
    "8 x 4 MB": [Part(8, text(4_000_000))],
    # The largest list that is held as a whole, and the largest result of the first statement.
    "2,000 x 1 kB": [Part(2_000, text(1_000))],
    "2,000 x 8 kB": [Part(2_000, text(8_000))],
    # The first cases give no hint of the size of the others.
    "1,000 x 1 B, 500 x 60 kB": [Part(1_000, "'x'"), Part(500, text(60_000))],
    "100 x 1 B, 1,900 x 8 kB": [Part(100, "'x'"), Part(1_900, text(8_000))],
    "1,500 names of 20 kB": [Part(1_500, "'x'", text(20_000))],
    "290 x 7 kB of control characters": [Part(290, CONTROL)],
    "2,000 x 7 kB of control characters": [Part(2_000, CONTROL)],
}
DOCTORS = {name: f"{number:08x}-0000-4000-8000-000000000000" for number, name in enumerate(LISTS, 1)}


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """Run a server with all lists, and with the 50 cases of ``TARGET``."""
    into = "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender, case_summary)"
    with postgres_with_cases() as server:
        for name, parts in LISTS.items():
            for part in parts:
                server.query(f"{into} SELECT %s, {part.name}, 1, 'x', {part.summary}", [TEMPLATE])
                # Copies of a compressed text need not be compressed again.
                server.query(
                    f"{into} SELECT %s, patient_name, 1, 'x', case_summary"
                    " FROM medmitra.cases CROSS JOIN generate_series(1, %s) WHERE user_id = %s",
                    [DOCTORS[name], part.cases, TEMPLATE],
                )
                server.query("DELETE FROM medmitra.cases WHERE user_id = %s", [TEMPLATE])
        server.query("VACUUM ANALYZE medmitra.cases")
        yield server


def target(name: str, parameters: str = "") -> str:
    return TARGET.replace(DOCTOR, DOCTORS[name]) + parameters


def peak_kb(server: Running) -> int:
    """Return the maximum of the process's resident memory since its start."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def count_cases(server: Running, path: str) -> int:
    """Read a whole list without keeping it, and return the number of its cases."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS)) as client:
        client.request("GET", path)
        response = client.getresponse()
        assert response.status == 200, response.read(1_000)
        count, rest = 0, b""
        while received := response.read(1 << 20):
            received = rest + received
            count += received.count(b'{"case_id":')
            rest = received[-10:]  # shorter than the counted text
        assert rest.endswith(b"}]}")
        return count


@pytest.mark.parametrize(
    ("name", "clients", "parameters", "etag_source"),
    [
        ("2,000 x 10 kB", 8, "", "rows"),
        ("10,000 x 100 kB", 1, "", "rows"),
        ("2,000 x 60 kB", 1, "", "rows"),
        ("2,000 x 8 kB", 8, "", "rows"),
        ("2,000 x 1 kB", 8, "", "rows"),
        ("20 x 1 MB", 8, "", "rows"),
        ("8 x 4 MB", 8, "", "rows"),
        ("1,000 x 1 B, 500 x 60 kB", 8, "", "rows"),
        ("100 x 1 B, 1,900 x 8 kB", 8, "", "rows"),
        ("1,500 names of 20 kB", 8, "", "rows"),
        ("290 x 7 kB of control characters", 8, "", "rows"),
        ("2,000 x 7 kB of control characters", 8, "", "rows"),
        ("1,000 x 20 kB", 8, "&limit=1000", "rows"),
        ("2,000 x 10 kB", 8, "&sort_by=patient_name&sort_order=desc", "rows"),
        ("2,000 x 10 kB", 4, "&search=0123", "rows"),
        ("1,000 x 20 kB", 8, "", "body"),
        ("1,000 x 20 kB", 8, "&page=1&limit=1000", "body"),
    ],
)
def test_large_cases(database: Postgres, name: str, clients: int, parameters: str, etag_source: str) -> None:
    with (
        serving(database.service_dsn, MEDMITRA_ETAG_SOURCE=etag_source) as server,
        ThreadPoolExecutor(clients) as pool,
    ):
        counts = pool.map(lambda _: count_cases(server, target(name, parameters)), range(clients))
        assert list(counts) == [sum(part.cases for part in LISTS[name])] * clients
        assert peak_kb(server) < MAX_KB


@pytest.mark.parametrize("etag_source", ["rows", "body"])
def test_responses_without_a_body(database: Postgres, etag_source: str) -> None:
    with serving(database.service_dsn, MEDMITRA_ETAG_SOURCE=etag_source) as server:

        def poll(name: str) -> list[int]:
            head, _ = server.get(target(name), method="HEAD")
            known = {"If-None-Match": head.headers["ETag"]}
            return [head.status, server.get(target(name), **known)[0].status]

        with ThreadPoolExecutor(8) as pool:
            names = 2 * ["2,000 x 8 kB", "2,000 x 10 kB", "500 x 10 kB", "8 x 4 MB"]
            assert list(pool.map(poll, names)) == [[200, 304]] * len(names)
        assert peak_kb(server) < MAX_KB


@pytest.mark.parametrize(
    ("requests", "count"),
    [
        pytest.param(raw_request(target("2,000 x 2 kB")), 100, id="2,000 x 2 kB"),
        pytest.param(raw_request(target("500 x 10 kB")), 100, id="500 x 10 kB"),
        pytest.param(raw_request(target("2,000 x 1 kB")), 100, id="2,000 x 1 kB"),
        pytest.param(raw_request(target("10,000 x 100 kB")), 100, id="10,000 x 100 kB"),
        pytest.param(raw_request(BUNDLE), 300, id="documentation"),
        pytest.param(500 * raw_request(TARGET), 100, id="pipelined requests"),
    ],
)
def test_stalled_clients(database: Postgres, requests: bytes, count: int) -> None:
    with serving(database.service_dsn) as server, stalled(server, requests, count):
        # Some requests may have got an error.
        wait_until(lambda: server.metric(IN_FLIGHT) >= 40)
        for _ in range(100):  # other clients need not wait
            assert count_cases(server, TARGET) == CASES
        assert peak_kb(server) < MAX_KB


def test_stalled_clients_are_disconnected(database: Postgres) -> None:
    with serving(database.service_dsn, MEDMITRA_KEEPALIVE_SECONDS="2") as server:
        with stalled(server, raw_request(target("2,000 x 2 kB")), 100) as clients:
            wait_until(lambda: server.metric(IN_FLIGHT) >= 40)
            wait_until(lambda: server.metric(IN_FLIGHT) == 0)
            received = [client.recv(1_000) for client in clients]
        assert peak_kb(server) < MAX_KB
        assert count_cases(server, target("2,000 x 2 kB")) == 2_000
    # The rest waited for 10 s for those before them.
    assert any(b"500 INTERNAL" in start and b"overloaded" in start for start in received)
