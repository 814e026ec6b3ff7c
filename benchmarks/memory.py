"""Memory: what one list of 100,000 cases costs the process, with a fast client and with a slow one."""

import http.client
import json
import socket
import time
from contextlib import closing, suppress
from pathlib import Path

from benchmarks.load import WARM_UP_SECONDS, Target, load
from benchmarks.run import BenchmarkError, Run, figure
from benchmarks.servers import OURS, Service, path, running

CASES = 100_000
TARGET_MB = 32
MB = 1_000_000
BYTES_PER_KB = 1024

# The audit line of the request goes to a log file, and may begin a page of it.
LOG_PAGE_BYTES = 4096

# A slow client. With the kernel's default buffer it would take megabytes before the server has to wait.
RECEIVE_BUFFER_BYTES = 65_536
READ_BYTES = 16_384
READ_PAUSE_SECONDS = 0.001

# It reads nothing for this long. The server fills its buffers in a fraction of that.
STALL_SECONDS = 3.0


def long_list(run: Run) -> None:
    """Measure one long list with each kind of client, each from a new process."""
    run.say(f"## Memory: one list of {CASES:,} cases")
    rows = []
    for client in ("fast", "slow"):
        with running(run.database, OURS) as services:
            # After some hundred short requests the process is as large as it stays when idle.
            load(Target(services[OURS].url(50)), WARM_UP_SECONDS)
            rows.append([client, *_measure(services[OURS], slow=client == "slow")])
    header = ["client", "peak above idle", "written to disk", "files opened", "first byte, ms", "whole, ms"]
    run.table([*header, "body, MB"], rows)


def _measure(service: Service, *, slow: bool) -> list[str]:
    pid = service.pid
    resident_bytes = _bytes(pid, "status", "VmRSS")
    written_bytes = _bytes(pid, "io", "write_bytes")
    files = _open_files(pid)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets VmHWM, the peak
    with closing(_connect(service.port, slow=slow)) as connection:
        begin = time.perf_counter()
        connection.request("GET", path(CASES))
        response = connection.getresponse()
        pieces = [response.read(1)]
        first_byte_seconds = time.perf_counter() - begin
        if slow:
            time.sleep(STALL_SECONDS)
        files = _open_files(pid) - files  # while the server still has something to send
        while piece := response.read(READ_BYTES):
            pieces.append(piece)
            if slow:
                time.sleep(READ_PAUSE_SECONDS)
        seconds = time.perf_counter() - begin
    body = b"".join(pieces)
    cases = len(json.loads(body)["cases"])
    if cases != CASES:
        raise BenchmarkError(f"{OURS} sent {cases:,} cases with status {response.status}, not {CASES:,}")
    peak_bytes = _bytes(pid, "status", "VmHWM") - resident_bytes
    written_bytes = _bytes(pid, "io", "write_bytes") - written_bytes
    return [
        figure(peak_bytes / MB, "{:.3g} MB", at_most=TARGET_MB),
        figure(written_bytes, "{} bytes", at_most=LOG_PAGE_BYTES),
        ", ".join(sorted(files)) or "none ✓",
        f"{first_byte_seconds * 1e3:,.0f}",
        f"{seconds * 1e3:,.0f}",
        f"{len(body) / MB:.1f}",
    ]


def _connect(port: int, *, slow: bool) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.sock = socket.socket()
    if slow:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    connection.sock.connect(("127.0.0.1", port))
    return connection


def _bytes(pid: int, file: str, name: str) -> int:
    """Read one line of a file of proc(5), such as ``VmRSS:  1024 kB``."""
    lines = Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8").splitlines()
    (value,) = [line.split()[1:] for line in lines if line.startswith(f"{name}:")]
    return int(value[0]) * (BYTES_PER_KB if value[1:] == ["kB"] else 1)


def _open_files(pid: int) -> set[str]:
    """List the files that a process has open, deleted ones too; without sockets, pipes and devices."""
    targets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            targets.add(str(descriptor.readlink()))
    return {target for target in targets if target.startswith("/") and not target.startswith("/dev/")}
