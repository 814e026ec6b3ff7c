"""Responses that spare the client the whole list: 304 for an unchanged list, and pages."""

import json
from statistics import median

from benchmarks.load import Target, measure
from benchmarks.run import Run, figure, rate, ratios
from benchmarks.servers import FASTAPI, OURS, Service, running

# The minimum of our 304 responses per second ÷ FastAPI's whole lists per second, by number of cases.
NOT_MODIFIED_TARGETS = {50: 2.5, 1_000: 25, 10_000: 100}
WIRE_SIZES = (50, 1_000)
POLL_SECONDS = 5
PLANNED_SHARE = 2 / 3
POLLS = 24 * 60 * 60 // POLL_SECONDS
CHANGES = 100
MB = 1_000_000

CASES = 10_000
LIMIT = 5
# The minimum of our first pages per second ÷ FastAPI's whole lists per second.
WHOLE_TARGET = 100
# The maximum of the time for the first page of CASES ÷ the time for a list that is only one page long.
ONE_PAGE_TARGET = 1.5


def not_modified(run: Run) -> None:
    """Compare our 304 with FastAPI's whole list, in requests per second and in bytes a day."""
    with running(run.database, OURS, FASTAPI) as services:
        _compare_rates(run, services[OURS], services[FASTAPI])
        _compare_bytes(run, services[OURS], services[FASTAPI])


def pages(run: Run) -> None:
    """Compare the first and the last page of a long list with a short list, and with FastAPI's whole list."""
    run.say(f"## Pages of {LIMIT}, 8 connections")
    whole = f"{FASTAPI}, the whole list of {CASES:,}"
    one_page = f"first page of {LIMIT} of {LIMIT}"
    first = f"first page of {LIMIT} of {CASES:,}"
    last = f"last page of {LIMIT} of {CASES:,}, by `after`"
    limit = f"&limit={LIMIT}"
    with running(run.database, OURS, FASTAPI) as services:
        ours = services[OURS]
        _, body = ours.get(CASES)
        after = f"{limit}&after={json.loads(body)['cases'][-LIMIT - 1]['case_id']}"
        targets = {
            whole: Target(services[FASTAPI].url(CASES)),
            one_page: Target(ours.url(LIMIT, limit)),
            first: Target(ours.url(CASES, limit)),
            last: Target(ours.url(CASES, after)),
        }
        loads = measure(run, targets)
    rows = []
    for name, load in loads.items():
        row = [name, rate(load.per_second), "", "", f"{median(load.p99):,.1f}"]
        if name != whole:
            at_least, at_most = (WHOLE_TARGET, ONE_PAGE_TARGET) if name == first else (None, None)
            row[2] = figure(ratios(load.per_second, loads[whole].per_second), at_least=at_least)
            row[3] = figure(ratios(loads[one_page].per_second, load.per_second), at_most=at_most)
        rows.append(row)
    run.table(["request", "requests/s", "÷ FastAPI's", f"time ÷ that of {LIMIT} of {LIMIT}", "p99, ms"], rows)
    run.say(f"Last page ÷ first, in time: {figure(ratios(loads[first].per_second, loads[last].per_second))}")


def _compare_rates(run: Run, ours: Service, fastapi: Service) -> None:
    run.say("## Refresh: 304 beside the whole list, 8 connections")
    etags = {size: _etag(ours, size) for size in NOT_MODIFIED_TARGETS}
    targets = {"no cases": Target(ours.url(0))}
    for size, etag in etags.items():
        targets[f"200, {size}"] = Target(fastapi.url(size))
        targets[f"304, {size}"] = Target(ours.url(size), header=f"If-None-Match: {etag}")
    loads = measure(run, targets)
    for size, etag in etags.items():  # otherwise something else was measured
        ours.get(size, etag=etag)
    limit = loads["no cases"]
    rows = []
    for size, minimum in NOT_MODIFIED_TARGETS.items():
        whole, unchanged = loads[f"200, {size}"], loads[f"304, {size}"]
        faster = figure(ratios(unchanged.per_second, whole.per_second), at_least=minimum)
        fastest = figure(ratios(limit.per_second, whole.per_second))
        rows.append([f"{size:,}", rate(whole.per_second), rate(unchanged.per_second), faster, fastest])
    header = ["cases", f"{FASTAPI}, whole list, requests/s", f"{OURS}, 304, requests/s", "÷", "the limit ÷"]
    run.table(header, rows)
    doctors = POLL_SECONDS * PLANNED_SHARE * median(loads["304, 50"].per_second)
    run.say(
        f"The limit is {OURS} for a doctor without cases, {rate(limit.per_second)}/s: waitress,"
        " Flask, and one round trip to Postgres. One process serves"
        f" {round(doctors, -2):,.0f} doctors who request an unchanged list of 50 cases every {POLL_SECONDS}"
        " s, at two thirds of the rate of its 304."
    )


def _compare_bytes(run: Run, ours: Service, fastapi: Service) -> None:
    run.say(
        f"## Refresh: bytes on the wire, a day of polling every {POLL_SECONDS} s, {POLLS:,} requests\n\n"
        "Header and body of one response, not compressed, multiplied; without the requests."
        f" With tags, {CHANGES} of the responses are whole lists."
    )
    rows = []
    for size in WIRE_SIZES:
        theirs, whole = _wire_bytes(fastapi, size), _wire_bytes(ours, size)
        unchanged = _wire_bytes(ours, size, _etag(ours, size))
        with_tags = whole * CHANGES + unchanged * (POLLS - CHANGES)
        for name, each, day in (
            (FASTAPI.name, f"{theirs:,}", theirs * POLLS),
            (OURS.name, f"{whole:,}", whole * POLLS),
            (f"{OURS}, with tags", f"{whole:,} or {unchanged:,}", with_tags),
        ):
            rows.append([f"{size:,}", name, each, f"{day / MB:,.1f}", figure(theirs * POLLS / day)])
    run.table(["cases", "server", "bytes each", "MB a day", "FastAPI's ÷ it"], rows)


def _etag(service: Service, size: int) -> str:
    response, _ = service.get(size)
    return str(response.headers["ETag"])


def _wire_bytes(service: Service, size: int, etag: str = "") -> int:
    """Count the bytes of a response, which must have a Content-Length."""
    response, body = service.get(size, etag=etag)
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return len("\r\n".join([*lines, "", ""]).encode()) + len(body)
