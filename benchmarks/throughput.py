"""Throughput and response times beside the peers, and beside the service without its safety features."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.chart import draw
from benchmarks.database import PEER_ROLE, doctor_id
from benchmarks.load import Load, Target, measure
from benchmarks.run import CHECKOUT, BenchmarkError, Run, figure, output_of, rate, ratios
from benchmarks.servers import (
    BARE,
    BOUND,
    COMMAND,
    FASTAPI,
    FASTIFY,
    LITESTAR,
    OURS,
    Server,
    Service,
    running,
)


class Row(NamedTuple):
    """The requests of a row: lists of ``cases`` and, on 2 more connections, lists of ``beside`` cases."""

    cases: int
    connections: int = 8
    timeout_seconds: int = 10
    beside: int = 0

    def target(self, service: Service) -> Target:
        """Return these requests to a service."""
        beside = Target(service.url(self.beside), connections=2) if self.beside else None
        url = service.url(self.cases)
        return Target(url, connections=self.connections, timeout_seconds=self.timeout_seconds, beside=beside)


class Goal(NamedTuple):
    """The minimum of our requests/s ÷ those of the other server, and the maximum of our p99 ÷ its."""

    rate: float | None = None
    p99: float | None = None


ROWS = {
    "50": Row(50),
    "1,000": Row(1_000),
    "10,000": Row(10_000),
    "50, 64 connections": Row(50, connections=64, timeout_seconds=2),
    "50, 4 connections, beside 2 for 10,000": Row(50, connections=4, beside=10_000),
}
FIFTY, THOUSAND, TEN_THOUSAND, CROWD, BESIDE = ROWS

# The servers that ours is compared with, in which rows, and our targets.
Goals = Mapping[Server, Mapping[str, Goal]]
UNTARGETED = {CROWD: Goal(), BESIDE: Goal()}
ONE_PROCESS: Goals = {
    FASTAPI: {FIFTY: Goal(1.7, 1), THOUSAND: Goal(4, 1), TEN_THOUSAND: Goal(4, 1), **UNTARGETED},
    FASTIFY: {FIFTY: Goal(0.85, 1.3), THOUSAND: Goal(2, 1.3), TEN_THOUSAND: Goal(2.5, 1.3), **UNTARGETED},
    LITESTAR: {FIFTY: Goal(1), THOUSAND: Goal(1.8), TEN_THOUSAND: Goal(1.8), **UNTARGETED},
    BARE: {FIFTY: Goal(0.7), THOUSAND: Goal(0.9), TEN_THOUSAND: Goal(0.85)},
    BOUND: {FIFTY: Goal()},
}
TWO_PROCESSES: Goals = {FASTAPI: {FIFTY: Goal(1.4), THOUSAND: Goal(3), TEN_THOUSAND: Goal(3)}}
# Another checkout of the service, if one is given.
BASELINE = {FIFTY: Goal(), THOUSAND: Goal(), CROWD: Goal(p99=1), BESIDE: Goal(1.5, 0.5)}

# The maximum of our time per request ÷ that without row level security.
ROW_SECURITY_TARGET = 1.1

# No other program uses it.
SECRET = "benchmark-secret-of-at-least-32-bytes"  # noqa: S105


def one_process(run: Run) -> None:
    """Compare one process of each server: list lengths, 64 connections, and short lists beside long ones."""
    goals = dict(ONE_PROCESS)
    if run.baseline:
        goals[replace(OURS, name=f"{OURS}, baseline", command=(run.baseline, "serve"))] = BASELINE
    run.say("## One process each")
    run.say(
        f"Each process may use all cores. “{BARE}” is the limit: the same server, psycopg2 and SELECT, arrays"
        " instead of objects, and neither Flask nor marshmallow."
    )
    results = _compare(run, goals, [name for name in ROWS if name in (run.rows or ROWS)])
    if run.folder:
        draw({name: results[name] for name in (FIFTY, THOUSAND, TEN_THOUSAND)}, run.folder / "results.svg")


def two_processes(run: Run) -> None:
    """Compare two processes of each server. Ours share a listening socket."""
    run.say("## Two processes each")
    _compare(run, TWO_PROCESSES, [FIFTY, THOUSAND, TEN_THOUSAND], processes=2)


def cost_of_safety(run: Run) -> None:
    """Compare the service with itself, without row level security and with tokens."""
    run.say("## The cost of safety: 50 cases, 8 connections")
    with tempfile.TemporaryDirectory() as folder:
        _copy_without_row_security(Path(folder) / "medmitra_cases")
        copy, secret = {"PYTHONPATH": folder}, {"MEDMITRA_JWT_SECRET": SECRET}
        without = replace(OURS, name=f"{OURS} without row level security", role=PEER_ROLE, environ=copy)
        with_tokens = replace(OURS, name=f"{OURS} with tokens (HS256)", environ=secret)
        token = output_of(COMMAND, "token", "--user", doctor_id(50), environ=secret).strip()
        with running(run.database, without, OURS, with_tokens) as services:
            targets = {server: Target(service.url(50)) for server, service in services.items()}
            targets[with_tokens] = targets[with_tokens]._replace(header=f"Authorization: Bearer {token}")
            loads = measure(run, targets)
    rows = []
    for server, load in loads.items():
        at_most = ROW_SECURITY_TARGET if server is OURS else None
        longer = figure(ratios(loads[without].per_second, load.per_second), at_most=at_most)
        rows.append([server.name, rate(load.per_second), longer, f"{median(load.p99):,.1f}"])
    run.table(["server", "requests/s", "time per request ÷ the first's", "p99, ms"], rows)


def _compare(
    run: Run, goals: Goals, names: Sequence[str], processes: int = 1
) -> dict[str, dict[Server, Load]]:
    """Measure all servers and rows in one interleaved run, and write a table."""
    servers = [server for server in goals if set(names) & set(goals[server])]
    with running(run.database, OURS, *servers, processes=processes) as services:
        _check_same_responses(services)
        # The servers of one row are neighbours.
        targets = {
            (name, server): ROWS[name].target(service)
            for name in names
            for server, service in services.items()
            if server is OURS or name in goals[server]
        }
        loads = measure(run, targets)
    rows = []
    for (name, server), load in loads.items():
        ours = loads[name, OURS]
        row = [name, server.name, rate(load.per_second), "", f"{median(load.p99):,.1f}", ""]
        if server is not OURS:
            goal = goals[server][name]
            row[3] = figure(ratios(ours.per_second, load.per_second), at_least=goal.rate)
            row[5] = figure(ratios(ours.p99, load.p99), at_most=goal.p99)
        beside = rate(load.beside) if ROWS[name].beside else ""
        rows.append([*row, f"{max(load.longest):,.1f}", beside])
    header = ["cases", "server", "requests/s", "ours ÷ its", "p99, ms", "ours ÷ its", "longest, ms"]
    run.table([*header, "long lists/s"], rows)
    return {name: {server: loads[name, server] for n, server in loads if n == name} for name in names}


def _check_same_responses(services: Mapping[Server, Service]) -> None:
    """Check that all servers send the same bytes. The limit sends arrays instead of objects."""
    for size in {row.cases for row in ROWS.values()}:
        _, expected = services[OURS].get(size)
        for server, service in services.items():
            if server is not BARE and service.get(size)[1] != expected:
                raise BenchmarkError(f"{server} sent another list of {size} cases than {OURS}")


def _copy_without_row_security(package: Path) -> None:
    """Copy the package; in the copy the SELECT is sent alone, because set_user_id.sql has no statement."""
    shutil.copytree(CHECKOUT / "medmitra_cases", package)
    shutil.copytree(CHECKOUT / "sql", package / "sql")
    (package / "sql" / "set_user_id.sql").write_text("-- name: set_user_id\n", encoding="utf-8")
