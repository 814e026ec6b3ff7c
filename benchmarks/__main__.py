"""Runs the whole benchmark: ``python -m benchmarks``, or ``make bench`` with all that it needs."""

import json
import os
import platform
import signal
import sys
import traceback
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks import growth, memory, short_responses, startup, throughput
from benchmarks.database import Group, filled_database, postgres
from benchmarks.load import SLOW_PER_SECOND
from benchmarks.run import FULL, QUICK, Run, output_of
from benchmarks.servers import PEERS_FOLDER

FOLDER = Path(__file__).parent

# Each writes one table, or two that share their servers.
TABLES = (
    throughput.one_process,
    throughput.two_processes,
    short_responses.not_modified,
    short_responses.pages,
    throughput.cost_of_safety,
    growth.with_the_table,
    growth.with_the_response,
    memory.long_list,
    startup.first_response,
    startup.first_test,
)

# Doctor number N has N cases. The cases of the other doctors are never requested.
DOCTORS = [Group(first=cases, doctors=1, cases_each=cases) for cases in (5, 50, 100, 1_000, 10_000, 100_000)]
OTHER_DOCTORS = Group(first=1_000_000, doctors=1_000, cases_each=50)

PYTHON_PACKAGES = ("flask", "waitress", "psycopg2-binary", "marshmallow")
PEERS_PYTHON_PACKAGES = ("fastapi", "uvicorn", "pydantic", "litestar", "granian", "msgspec", "asyncpg")
NODE_PACKAGES = ("fastify", "pg")


@click.command()
@click.option("--quick", is_flag=True, help="One short round, a smaller table, and no files written.")
@click.option(
    "--row",
    "rows",
    multiple=True,
    type=click.Choice(list(throughput.ROWS)),
    help="Measure only this row of one process each, and write no files. Repeatable.",
)
@click.option(
    "--baseline",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="The command medmitra-cases of another checkout, to compare with.",
)
def main(quick: bool, rows: tuple[str, ...], baseline: Path | None) -> None:
    """Measure medmitra-cases beside its peers: print tables, write results.md and results.svg."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that Postgres and the servers end, too
    output_of("npm", "ci", "--loglevel=error", "--prefix", PEERS_FOLDER / "fastify")
    with (
        postgres() as owner_dsn,
        filled_database(owner_dsn, "bench", OTHER_DOCTORS, *DOCTORS) as database,
    ):
        run = Run(QUICK if quick else FULL, database, None if quick or rows else FOLDER, baseline, rows)
        _describe(run)
        for table in (throughput.one_process,) if rows else TABLES:
            try:
                table(run)
            except Exception as error:  # the next table is measured all the same
                traceback.print_exc()
                run.fail(f"{type(error).__name__}: {error}")
    if run.folder:
        (run.folder / "results.md").write_text("\n\n".join(run.paragraphs) + "\n", encoding="utf-8")
    if run.failures:
        raise click.ClickException("; ".join(run.failures))


def _describe(run: Run) -> None:
    """Write the date, the versions of everything, and how the throughput is measured."""
    versions = {
        "Python": platform.python_version(),
        "Postgres": run.database.postgres_version(),
        "node": output_of("node", "--version").strip().removeprefix("v"),
        **{name: version(name) for name in (*PYTHON_PACKAGES, *PEERS_PYTHON_PACKAGES)},
    }
    for name in NODE_PACKAGES:
        package = PEERS_FOLDER / "fastify" / "node_modules" / name / "package.json"
        versions[name] = json.loads(package.read_text(encoding="utf-8"))["version"]
    today = datetime.now(timezone.utc).date().isoformat()
    run.say("# Benchmark")
    run.say(
        f"`make bench`, {today}, {os.cpu_count()} cores, which the servers, Postgres and wrk share. "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + "."
    )
    run.say(
        f"Throughput: medians of {run.effort.rounds} interleaved rounds after a warm-up. wrk loads each"
        f" server with 8 keep-alive connections for {run.effort.seconds} s ({2 * run.effort.seconds} s below"
        f" {SLOW_PER_SECOND} requests/s). All rows of a table are measured in the same rounds; “÷” is the"
        " median of the ratios in each round. In [ ]: the lowest and the highest round. In ( ): the target,"
        " ✓ met or ✗ not met."
    )


if __name__ == "__main__":
    main()
