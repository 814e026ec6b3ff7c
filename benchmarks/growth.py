"""Growth: how the time per request grows with the table, and the time per case with the answer."""

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from benchmarks.commands import OURS
from benchmarks.database import Group, create_database, drop_database
from benchmarks.effort import Effort
from benchmarks.errors import BenchmarkError
from benchmarks.load import measure
from benchmarks.report import Report, times
from benchmarks.services import path, running

SMALL_TABLE_ROWS = 10_000
CASES_EACH = 50
TABLE_TARGET = 1.2

ANSWER_SIZES = (100, 1_000, 10_000, 100_000)
SECONDS_EACH = 1.0


def with_the_table(report: Report, effort: Effort, owner_dsn: str) -> None:
    """Compare a small table with a large one, asked for 50 cases.

    Args:
        report: Takes the table.
        effort: How often and how long, and how large.
        owner_dsn: The superuser's connection string to the server that gets the two databases.

    Raises:
        BenchmarkError: A server does not start.
    """
    report.say("## Growth with the table: 50 cases asked, 8 connections")
    small, large = f"{SMALL_TABLE_ROWS:,} rows", f"{effort.large_table_rows:,} rows"
    doctors = {small: SMALL_TABLE_ROWS // CASES_EACH, large: effort.large_table_rows // CASES_EACH}
    with (
        _database(owner_dsn, "bench_small", doctors[small]) as small_url,
        _database(owner_dsn, "bench_large", doctors[large]) as large_url,
        running(OURS, small_url) as small_service,
        running(OURS, large_url) as large_service,
    ):
        urls = {small: small_service.url(0), large: large_service.url(0)}
        one_doctor = measure(urls, effort)
        any_doctor = measure(urls, effort, doctors=doctors)
    rows = []
    for asked, loads in (("one doctor's", one_doctor), ("a random doctor's each time", any_doctor)):
        per_request = {name: 1e3 / load.requests_per_second for name, load in loads.items()}
        rows.append(
            [
                asked,
                f"{per_request[small]:.3f}",
                f"{per_request[large]:.3f}",
                times(per_request[large] / per_request[small], at_most=TABLE_TARGET),
            ]
        )
        for name, load in loads.items():
            if load.errors:
                report.fail(f"{load.errors} errors from {OURS} on {name}")
    report.table(["cases", f"ms per request, {small}", f"ms per request, {large}", "large ÷ small"], rows)


def with_the_answer(report: Report, effort: Effort, database_url: str) -> None:
    """Compare small answers with large ones, asked for one after the other on one connection.

    Args:
        report: Takes the table.
        effort: How often.
        database_url: A database in which doctor number N has N cases, for each N of ``ANSWER_SIZES``.

    Raises:
        BenchmarkError: The server does not start, or fails.
    """
    report.say("## Growth with the answer: one connection, one request after the other")
    seconds: dict[int, list[float]] = {size: [] for size in ANSWER_SIZES}
    with running(OURS, database_url) as service:
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        for size in ANSWER_SIZES:
            next(_requests(connection, size))  # warm-up
        for _ in range(effort.rounds):
            for size in ANSWER_SIZES:
                end = time.perf_counter() + SECONDS_EACH
                for took in _requests(connection, size):
                    seconds[size].append(took)
                    if time.perf_counter() > end:
                        break
        connection.close()
    per_case = {size: median(taken) / size * 1e6 for size, taken in seconds.items()}
    report.table(
        ["cases", "ms per request", "µs per case"],
        [
            [f"{size:,}", f"{median(seconds[size]) * 1e3:.2f}", f"{per_case[size]:.2f}"]
            for size in ANSWER_SIZES
        ],
    )
    # The fixed cost of a request, some hundred µs, is what a small answer has to share among few cases.
    report.say(f"Dearest case ÷ cheapest: {times(max(per_case.values()) / min(per_case.values()))}")


@contextmanager
def _database(owner_dsn: str, name: str, doctors: int) -> Iterator[str]:
    try:
        yield create_database(owner_dsn, name, Group(first=0, doctors=doctors, cases_each=CASES_EACH))
    finally:
        drop_database(owner_dsn, name)


def _requests(connection: http.client.HTTPConnection, size: int) -> Iterator[float]:
    """Ask again and again; yields how many seconds each answer took to its last byte."""
    while True:
        begin = time.perf_counter()
        connection.request("GET", path(size))
        response = connection.getresponse()
        response.read()
        took = time.perf_counter() - begin
        if response.status != http.client.OK:
            raise BenchmarkError(f"status {response.status} when asked for {size:,} cases")
        yield took
