"""Throughput: requests per second and response times beside the peers'."""

from contextlib import ExitStack

from benchmarks.answers import compare_answers
from benchmarks.commands import BARE, FASTAPI, FASTIFY_PG, OURS, UNBOUND
from benchmarks.effort import Effort
from benchmarks.load import Load, measure
from benchmarks.report import Report, rate, times
from benchmarks.services import Service, running

SIZES = (50, 1_000, 10_000)

# How many times our requests per second are to be the other's, by size. Fastify at 50 cases: as near 1 as
# waitress allows.
ONE_PROCESS_TARGETS = {
    FASTAPI: {50: 1.5, 1_000: 4.0, 10_000: 4.0},
    FASTIFY_PG: {1_000: 1.8, 10_000: 2.5},
    BARE: {50: 0.8, 1_000: 0.9},
    UNBOUND: {},
}
TWO_PROCESSES_TARGETS = {
    FASTAPI: {50: 1.5, 1_000: 2.5, 10_000: 2.5},
    FASTIFY_PG: {},
}
# With 64 connections a request that takes longer counts as an error: nobody is to starve.
TIMEOUT_SECONDS = 2

Targets = dict[str, dict[int, float]]


def one_process(report: Report, effort: Effort, database_url: str) -> dict[int, dict[str, Load]]:
    """Compare one process of each server, at 8 connections and, for 50 cases, at 64.

    Args:
        report: Takes the tables.
        effort: How often and how long.
        database_url: A database in which doctor number N has N cases, for each N of ``SIZES``.

    Returns:
        What was measured at 8 connections, by size and server.

    Raises:
        BenchmarkError: A server does not start, or answers differ.
    """
    with ExitStack() as stack:
        services = {
            server: stack.enter_context(running(server, database_url))
            for server in (OURS, *ONE_PROCESS_TARGETS)
        }
        comparable = {name: services[name] for name in (OURS, FASTAPI, FASTIFY_PG)}
        compare_answers(comparable, SIZES)
        compared = ", ".join(comparable)
        report.say(
            f"Asked for {', '.join(f'{size:,}' for size in SIZES)} cases, {compared} gave the same answers."
            f" “{BARE}” is the limit: the same waitress, psycopg2 and SELECT, arrays instead of objects, and"
            " neither Flask nor marshmallow."
        )
        report.say("## One process each, 8 connections")
        results = _compare(report, effort, services, ONE_PROCESS_TARGETS)
        report.say("## One process each, 64 connections, 50 cases")
        loads = measure(
            {name: service.url(50) for name, service in services.items()},
            effort,
            connections=64,
            timeout_seconds=TIMEOUT_SECONDS,
        )
        report.table(
            ["server", "requests/s", "ours ÷ its", "p99, ms", "longest, ms", "errors"],
            [
                [
                    name,
                    rate(load.requests_per_second),
                    "" if name == OURS else times(loads[OURS].requests_per_second / load.requests_per_second),
                    f"{load.p99:,.1f}",
                    f"{load.maximum:,.1f}",
                    str(load.errors),
                ]
                for name, load in loads.items()
            ],
        )
        _report_errors(report, loads, "64 connections")
    return results


def two_processes(report: Report, effort: Effort, database_url: str) -> None:
    """Compare two processes of each server. Ours share a listening socket that is handed over to them.

    Args:
        report: Takes the table.
        effort: How often and how long.
        database_url: As for ``one_process``.

    Raises:
        BenchmarkError: A server does not start.
    """
    report.say("## Two processes each, 8 connections")
    with ExitStack() as stack:
        services = {
            server: stack.enter_context(running(server, database_url, processes=2))
            for server in (OURS, *TWO_PROCESSES_TARGETS)
        }
        _compare(report, effort, services, TWO_PROCESSES_TARGETS)


def _compare(
    report: Report, effort: Effort, services: dict[str, Service], targets: Targets
) -> dict[int, dict[str, Load]]:
    results = {}
    rows = []
    for size in SIZES:
        loads = measure({name: service.url(size) for name, service in services.items()}, effort)
        rows += [_row(size, name, load, loads[OURS], targets) for name, load in loads.items()]
        results[size] = loads
    report.table(["cases", "server", "requests/s", "ours ÷ its", "p99, ms", "ours ÷ its"], rows)
    for size, loads in results.items():
        _report_errors(report, loads, f"{size:,} cases")
    return results


def _row(size: int, name: str, load: Load, ours: Load, targets: Targets) -> list[str]:
    cells = [f"{size:,}", name, rate(load.requests_per_second), "", f"{load.p99:,.1f}", ""]
    if name != OURS:
        faster = ours.requests_per_second / load.requests_per_second
        cells[3] = times(faster, at_least=targets[name].get(size))
        # No worse than the peers.
        cells[5] = times(ours.p99 / load.p99, at_most=1 if name in (FASTAPI, FASTIFY_PG) else None)
    return cells


def _report_errors(report: Report, loads: dict[str, Load], where: str) -> None:
    for name, load in loads.items():
        if load.errors:
            report.fail(f"{load.errors} errors from {name} at {where}")
