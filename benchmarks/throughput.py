"""Throughput and response times beside the peers, and beside the service without its safety features."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.chart import draw
from benchmarks.database import PEER_ROLE, doctor_id
from benchmarks.load import Load, Target, measure
from benchmarks.run import CHECKOUT, BenchmarkError, Run, figure, output_of, rate
from benchmarks.servers import BARE, COMMAND, FASTAPI, FASTIFY, OURS, UNBOUND, Server, Service, running

SIZES = (50, 1_000, 10_000)
PEERS = (FASTAPI, FASTIFY)

# The minimum of our requests per second ÷ those of the other server, by number of cases.
ONE_PROCESS: dict[Server, dict[int, float]] = {
    FASTAPI: {50: 1.5, 1_000: 4.0, 10_000: 4.0},
    FASTIFY: {1_000: 1.8, 10_000: 2.5},
    BARE: {50: 0.8, 1_000: 0.9},
    UNBOUND: {},
}
TWO_PROCESSES: dict[Server, dict[int, float]] = {
    FASTAPI: {50: 1.5, 1_000: 2.5, 10_000: 2.5},
    FASTIFY: {},
}
# The maximum of our p99 ÷ that of a peer.
P99_TARGET = 1.0
# With 64 connections, a response that takes longer counts as an error.
TIMEOUT_SECONDS = 2
# The maximum of our time per request ÷ that without row level security.
ROW_SECURITY_TARGET = 1.1

# No other program uses it.
SECRET = "benchmark-secret-of-at-least-32-bytes"  # noqa: S105


def one_process(run: Run) -> None:
    """Compare one process of each server, with 8 connections and, for 50 cases, with 64."""
    with running(run.database, OURS, *ONE_PROCESS) as services:
        compared = {server: services[server] for server in (OURS, *PEERS)}
        _check_same_responses(compared)
        run.say(
            f"{', '.join(map(str, compared))} sent the same responses for"
            f" {', '.join(f'{size:,}' for size in SIZES)} cases. “{BARE}” is the limit: the same waitress,"
            " psycopg2 and SELECT, arrays instead of objects, and neither Flask nor marshmallow."
        )
        run.say("## One process each, 8 connections")
        results = _compare(run, services, ONE_PROCESS)
        run.say("## One process each, 64 connections, 50 cases")
        loads = measure(run, _targets(services, 50), connections=64, timeout_seconds=TIMEOUT_SECONDS)
        rows = []
        for server, load in loads.items():
            faster = "" if server is OURS else figure(loads[OURS].ratio_to(load))
            milliseconds = [f"{load.p99:,.1f}", f"{load.longest:,.1f}"]
            rows.append(
                [server.name, rate(load.requests_per_second), faster, *milliseconds, str(load.errors)]
            )
        run.table(["server", "requests/s", "ours ÷ its", "p99, ms", "longest, ms", "errors"], rows)
    if run.folder:
        draw(results, run.folder / "results.svg")


def two_processes(run: Run) -> None:
    """Compare two processes of each server. Ours share a listening socket."""
    run.say("## Two processes each, 8 connections")
    with running(run.database, OURS, *TWO_PROCESSES, processes=2) as services:
        _compare(run, services, TWO_PROCESSES)


def cost_of_safety(run: Run) -> None:
    """Compare the service with itself, without row level security and with tokens."""
    run.say("## What safety costs: 50 cases, 8 connections")
    with tempfile.TemporaryDirectory() as folder:
        _copy_without_row_security(Path(folder) / "medmitra_cases")
        copy, secret = {"PYTHONPATH": folder}, {"MEDMITRA_JWT_SECRET": SECRET}
        without = replace(OURS, name=f"{OURS} without row level security", role=PEER_ROLE, environ=copy)
        with_tokens = replace(OURS, name=f"{OURS} with tokens (HS256)", environ=secret)
        token = output_of(COMMAND, "token", "--user", doctor_id(50), environ=secret).strip()
        with running(run.database, without, OURS, with_tokens) as services:
            targets = _targets(services, 50)
            targets[with_tokens] = targets[with_tokens]._replace(header=f"Authorization: Bearer {token}")
            loads = measure(run, targets)
    rows = []
    for server, load in loads.items():
        at_most = ROW_SECURITY_TARGET if server is OURS else None
        longer = figure(loads[without].ratio_to(load), at_most=at_most)
        rows.append([server.name, rate(load.requests_per_second), longer, f"{load.p99:,.1f}"])
    run.table(["server", "requests/s", "time per request ÷ the first's", "p99, ms"], rows)


def _compare(
    run: Run, services: Mapping[Server, Service], minimums: Mapping[Server, Mapping[int, float]]
) -> dict[int, dict[Server, Load]]:
    results = {}
    rows = []
    for size in SIZES:
        results[size] = loads = measure(run, _targets(services, size))
        for server, load in loads.items():
            row = [f"{size:,}", server.name, rate(load.requests_per_second), "", f"{load.p99:,.1f}", ""]
            if server is not OURS:
                row[3] = figure(loads[OURS].ratio_to(load), at_least=minimums[server].get(size))
                row[5] = figure(loads[OURS].p99 / load.p99, at_most=P99_TARGET if server in PEERS else None)
            rows.append(row)
    run.table(["cases", "server", "requests/s", "ours ÷ its", "p99, ms", "ours ÷ its"], rows)
    return results


def _targets(services: Mapping[Server, Service], cases: int) -> dict[Server, Target]:
    return {server: Target(service.url(cases)) for server, service in services.items()}


def _check_same_responses(services: Mapping[Server, Service]) -> None:
    """Check that all servers send the same cases, with their keys in the same order."""
    for size in SIZES:
        expected = None
        for server, service in services.items():
            body = json.loads(service.get(size)[1], object_pairs_hook=list)
            expected = expected or body
            ((_, cases),) = body
            if len(cases) != size or body != expected:
                raise BenchmarkError(
                    f"{server} sent other cases than {OURS}, or {len(cases)} instead of {size}"
                )


def _copy_without_row_security(package: Path) -> None:
    """Copy the package; in the copy the SELECT is sent alone, because set_user_id.sql has no statement."""
    shutil.copytree(CHECKOUT / "medmitra_cases", package)
    shutil.copytree(CHECKOUT / "sql", package / "sql")
    (package / "sql" / "set_user_id.sql").write_text("-- name: set_user_id\n", encoding="utf-8")
