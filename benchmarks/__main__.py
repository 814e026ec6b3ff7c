"""Runs the whole benchmark: ``python -m benchmarks``, or ``make bench`` with all that it needs."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import growth, harness, memory, pages, refresh, safety, startup, throughput
from benchmarks.database import Group, create_database, postgres, postgres_version
from benchmarks.effort import FULL, QUICK, Effort
from benchmarks.errors import BenchmarkError
from benchmarks.load import Load
from benchmarks.plot import draw
from benchmarks.report import Report
from benchmarks.tools import provide_tools
from benchmarks.versions import describe_run
from medmitra_cases.errors import MedmitraCasesError
from medmitra_cases.server.signals import exit_on_signals

FOLDER = Path(__file__).parent

# Doctor number N has N cases; nobody asks for those of the others.
OTHERS = Group(first=1_000_000, doctors=1_000, cases_each=50)
ASKED = [Group(first=cases, doctors=1, cases_each=cases) for cases in (5, 50, 100, 1_000, 10_000, 100_000)]


@click.command()
@click.option("--quick", is_flag=True, help="Try it out: one short round, a smaller table, no files written.")
def main(quick: bool) -> None:
    """Measure medmitra-cases beside its peers: print tables, write results.md and results.svg."""
    report = Report()
    try:
        provide_tools()
        exit_on_signals()
        with postgres() as owner_dsn:
            results = _run(report, QUICK if quick else FULL, owner_dsn)
    except (BenchmarkError, MedmitraCasesError) as error:
        raise click.ClickException(str(error)) from error
    if not quick:
        (FOLDER / "results.md").write_text(report.text(), encoding="utf-8")
        if results:
            draw(results, FOLDER / "results.svg")
    if report.failures:
        click.echo(f"Failed: {'; '.join(report.failures)}", err=True)
        sys.exit(1)


def _run(report: Report, effort: Effort, owner_dsn: str) -> dict[int, dict[str, Load]]:
    """Run every part; one that fails does not keep the next from running."""
    report.say("# Benchmark")
    report.say(describe_run("make bench", postgres_version(owner_dsn)))
    report.say(
        f"Throughput: medians of {effort.rounds} interleaved rounds of {effort.seconds} s, loaded by wrk with"
        " keep-alive connections, after a warm-up. In brackets: the target."
    )
    database_url = create_database(owner_dsn, "bench", OTHERS, *ASKED)
    results: dict[int, dict[str, Load]] = {}
    # All of it in a quarter of an hour.
    shorter = effort._replace(seconds=min(effort.seconds, 2), warm_up_seconds=1)

    parts: list[Callable[[], object]] = [
        lambda: results.update(throughput.one_process(report, effort, database_url)),
        lambda: throughput.two_processes(report, effort, database_url),
        lambda: refresh.unchanged(report, shorter, database_url),
        lambda: pages.first_and_last(report, shorter, database_url),
        lambda: safety.per_request(report, effort, database_url),
        lambda: growth.with_the_table(report, effort, owner_dsn),
        lambda: growth.with_the_answer(report, effort, database_url),
        lambda: memory.large_answer(report, effort, database_url),
        lambda: startup.first_answer(report, effort, database_url),
        lambda: harness.each_test(report, effort),
    ]
    for part in parts:
        try:
            part()
        except Exception as error:
            traceback.print_exc()
            report.fail(f"{type(error).__name__}: {error}")
    return results


if __name__ == "__main__":
    main()
