"""Refresh: what it costs to ask again for a list that has not changed, in time and in bytes."""

import http.client
import socket
from contextlib import ExitStack
from io import BytesIO

from benchmarks.commands import FASTAPI, OURS
from benchmarks.effort import Effort
from benchmarks.errors import BenchmarkError
from benchmarks.load import measure
from benchmarks.report import Report, rate, times
from benchmarks.services import Service, path, running

# How many times the requests per second of FastAPI's full answer, by size.
TARGETS = {50: 3.0, 1_000: 20.0, 10_000: 80.0}
# There is no such doctor. What is left is HTTP, Flask, and a query that finds nothing.
NOBODY = 0

WIRE_SIZES = (50, 1_000)
POLL_SECONDS = 5
POLLS = 24 * 60 * 60 // POLL_SECONDS
CHANGES = 100
MB = 1_000_000


def unchanged(report: Report, effort: Effort, database_url: str) -> None:
    """Compare our 304 with FastAPI's full answer, in requests per second and in bytes for a day.

    Args:
        report: Takes the tables.
        effort: How often and how long.
        database_url: A database in which doctor number N has N cases, for each N of ``TARGETS``.

    Raises:
        BenchmarkError: A server does not start, or answers otherwise than it should.
    """
    with ExitStack() as stack:
        ours, fastapi = (stack.enter_context(running(server, database_url)) for server in (OURS, FASTAPI))
        _compare(report, effort, ours, fastapi)
        _weigh(report, ours, fastapi)


def _compare(report: Report, effort: Effort, ours: Service, fastapi: Service) -> None:
    report.say(f"## Refresh: “not changed” beside the whole list, 8 connections, turns of {effort.seconds} s")
    tags = {size: _tag(ours, size) for size in TARGETS}
    urls = {"limit": ours.url(NOBODY)}
    for size in TARGETS:
        urls[f"304 {size}"] = ours.url(size)
        urls[f"full {size}"] = fastapi.url(size)
    loads = measure(
        urls, effort, headers={f"304 {size}": f"If-None-Match: {tag}" for size, tag in tags.items()}
    )
    for size, tag in tags.items():  # or something else than 304 was measured
        _wire_bytes(ours, size, tag)
    per_second = {name: load.requests_per_second for name, load in loads.items()}
    report.table(
        ["cases", f"{FASTAPI}, whole list, requests/s", f"{OURS}, 304, requests/s", "÷", "the limit ÷"],
        [
            [
                f"{size:,}",
                rate(per_second[f"full {size}"]),
                rate(per_second[f"304 {size}"]),
                times(per_second[f"304 {size}"] / per_second[f"full {size}"], at_least=target),
                times(per_second["limit"] / per_second[f"full {size}"]),
            ]
            for size, target in TARGETS.items()
        ],
    )
    report.say(
        f"The limit is what {OURS} answers to a doctor without a case, {rate(per_second['limit'])}/s:"
        " waitress, Flask, one way to Postgres and back, and nothing to do there."
    )
    for name, load in loads.items():
        if load.errors:
            report.fail(f"{load.errors} errors at {name}")


def _weigh(report: Report, ours: Service, fastapi: Service) -> None:
    report.say(
        f"## Refresh: bytes on the wire, a day of polling every {POLL_SECONDS} s, {POLLS:,} requests\n\n"
        "Header and body as they come out of the socket, not compressed, once each and multiplied;"
        f" requests not counted. With tags, {CHANGES} of the answers are whole."
    )
    rows = []
    for size in WIRE_SIZES:
        peers = _wire_bytes(fastapi, size)
        whole = _wire_bytes(ours, size)
        not_changed = _wire_bytes(ours, size, _tag(ours, size))
        days = {
            FASTAPI: (f"{peers:,}", peers * POLLS),
            OURS: (f"{whole:,}", whole * POLLS),
            f"{OURS}, with tags": (
                f"{whole:,} or {not_changed:,}",
                whole * CHANGES + not_changed * (POLLS - CHANGES),
            ),
        }
        rows += [
            [f"{size:,}", name, each, f"{day / MB:,.1f}", times(peers * POLLS / day)]
            for name, (each, day) in days.items()
        ]
    report.table(["cases", "server", "bytes each", "MB a day", "FastAPI's ÷ it"], rows)


def _tag(service: Service, size: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.request("HEAD", path(size))
    response = connection.getresponse()
    connection.close()
    tag = response.headers["ETag"]
    if response.status != http.client.OK or tag is None:
        raise BenchmarkError(f"status {response.status} and the tag {tag} when asked for {size:,} cases")
    return tag


def _wire_bytes(service: Service, size: int, tag: str | None = None) -> int:
    """Ask, and count the bytes of the answer: with a tag it has to be 304, else 200."""
    fields = [f"GET {path(size)} HTTP/1.1", f"Host: 127.0.0.1:{service.port}"]
    if tag is not None:
        fields.append(f"If-None-Match: {tag}")
    with (
        socket.create_connection(("127.0.0.1", service.port)) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall("".join(f"{field}\r\n" for field in [*fields, ""]).encode())
        # By hand, as http.client does not say how many bytes a header took.
        status_line = answer.readline()
        lines = b"".join(iter(answer.readline, b"\r\n")) + b"\r\n"
        status = int(status_line.split()[1])
        expected = http.client.OK if tag is None else http.client.NOT_MODIFIED
        if status != expected:
            raise BenchmarkError(f"status {status}, not {expected:d}, when asked for {size:,} cases")
        length = http.client.parse_headers(BytesIO(lines))["Content-Length"]
        body = answer.read(int(length)) if tag is None else b""
    return len(status_line) + len(lines) + len(body)
