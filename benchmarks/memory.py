"""Memory: what one answer of 100,000 cases costs the process, to a fast reader and to a slow one."""

import http.client
import json
import socket
import time
from typing import NamedTuple

from benchmarks.commands import OURS
from benchmarks.effort import Effort
from benchmarks.errors import BenchmarkError
from benchmarks.load import measure
from benchmarks.process import Process
from benchmarks.report import Report, amount
from benchmarks.services import Service, path, running

CASES = 100_000
TARGET_MB = 32
MB = 1_000_000

# A slow reader. The kernel's own buffer would swallow megabytes before the server noticed one.
BUFFER_BYTES = 65_536
PIECE_BYTES = 16_384
REFETCH_SECONDS = 0.001

# The server has gone as far as it will when its memory has not moved for a while.
SETTLED_SECONDS = 1.0
MAX_STALL_SECONDS = 15.0
POLL_SECONDS = 0.05
NOISE_BYTES = 100_000


class _Cost(NamedTuple):
    peak_bytes: int
    written_bytes: int
    files: set[str]
    first_byte_seconds: float
    whole_seconds: float
    body_bytes: int


def large_answer(report: Report, effort: Effort, database_url: str) -> None:
    """Measure one large answer to each kind of reader, each from a fresh process.

    Args:
        report: Takes the table.
        effort: How long the process is asked small questions first.
        database_url: A database in which doctor number ``CASES`` has so many cases.

    Raises:
        BenchmarkError: The server does not start, or does not answer with all cases.
        http.client.HTTPException: An answer breaks off.
    """
    report.say(f"## Memory: one answer of {CASES:,} cases")
    rows = []
    for reader in ("fast", "slow"):
        with running(OURS, database_url) as service:
            # Some hundred small requests, after which the process is as large as it idly stays.
            measure({OURS: service.url(50)}, effort._replace(rounds=1, seconds=1))
            cost = _ask(service, slow=reader == "slow")
        rows.append(
            [
                reader,
                amount(cost.peak_bytes / MB, "MB", TARGET_MB),
                amount(cost.written_bytes, "bytes", 0),
                ", ".join(sorted(cost.files)) or "none ✓",
                f"{cost.first_byte_seconds * 1e3:,.0f}",
                f"{cost.whole_seconds * 1e3:,.0f}",
                f"{cost.body_bytes / MB:.1f}",
            ]
        )
    columns = ("reader", "peak above idle", "written to disk", "files opened", "first byte, ms", "whole, ms")
    report.table([*columns, "body, MB"], rows)


def _ask(service: Service, *, slow: bool) -> _Cost:
    process = Process(service.pid)
    idle, written, files = process.resident_bytes(), process.written_bytes(), process.open_files()
    process.forget_peak()
    connection = _connection(service.port, slow=slow)
    begin = time.perf_counter()
    connection.request("GET", path(CASES))
    response = connection.getresponse()
    first_byte = response.read(1)
    first_byte_seconds = time.perf_counter() - begin
    if slow:
        _wait_until_settled(process)
    new_files = process.open_files() - files  # while there is still something to send
    body = first_byte + (_read_in_pieces(response) if slow else response.read())
    whole_seconds = time.perf_counter() - begin
    connection.close()
    cases = len(json.loads(body)["cases"])
    if response.status != http.client.OK or cases != CASES:
        raise BenchmarkError(f"status {response.status} with {cases:,} cases, not {CASES:,}")
    return _Cost(
        peak_bytes=process.peak_resident_bytes() - idle,
        written_bytes=process.written_bytes() - written,
        files=new_files,
        first_byte_seconds=first_byte_seconds,
        whole_seconds=whole_seconds,
        body_bytes=len(body),
    )


def _connection(port: int, *, slow: bool) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.sock = socket.socket()
    if slow:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    connection.sock.connect(("127.0.0.1", port))
    return connection


def _wait_until_settled(process: Process) -> None:
    give_up_at = time.monotonic() + MAX_STALL_SECONDS
    resident, since = process.resident_bytes(), time.monotonic()
    while time.monotonic() < min(since + SETTLED_SECONDS, give_up_at):
        time.sleep(POLL_SECONDS)
        now = process.resident_bytes()
        if abs(now - resident) > NOISE_BYTES:
            resident, since = now, time.monotonic()


def _read_in_pieces(response: http.client.HTTPResponse) -> bytes:
    pieces = []
    while piece := response.read(PIECE_BYTES):
        pieces.append(piece)
        time.sleep(REFETCH_SECONDS)
    return b"".join(pieces)
