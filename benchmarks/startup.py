"""Start-up: from the command to the first answer, and what the imports cost."""

import itertools
import subprocess
import sys
import time
from statistics import median

from benchmarks.commands import CHECKOUT, OURS
from benchmarks.effort import Effort
from benchmarks.report import Report, amount
from benchmarks.services import running

TARGET_SECONDS = 0.6
OWN_PACKAGE = "medmitra_cases"
MODULE = f"{OWN_PACKAGE}.cli.main"
DEAREST = 5


def first_answer(report: Report, effort: Effort, database_url: str) -> None:
    """Measure how soon ``medmitra-cases serve`` answers.

    Args:
        report: Takes the tables.
        effort: How often the command is started.
        database_url: The database it reads.

    Raises:
        BenchmarkError: The server does not start.
    """
    report.say("## Start-up: `medmitra-cases serve` to its first answer")
    taken = []
    for _ in range(1 + effort.starts):
        begin = time.perf_counter()
        with running(OURS, database_url):
            taken.append(time.perf_counter() - begin)
    del taken[0]  # it may have had to compile the modules
    report.table(
        ["starts", "median", "longest"],
        [
            [
                str(effort.starts),
                amount(median(taken), "s", TARGET_SECONDS),
                amount(max(taken), "s", TARGET_SECONDS),
            ]
        ],
    )
    whole, costs = _import_costs()
    dearest = sorted(costs.items(), key=lambda item: item[1], reverse=True)[:DEAREST]
    report.say(
        f"Importing `{MODULE}` takes {whole:.0f} ms; the dearest packages, with what each imports first:"
    )
    report.table(["package", "ms"], [[name, f"{cost:.0f}"] for name, cost in dearest])


def _import_costs() -> tuple[float, dict[str, float]]:
    """Ask Python how long the import took, and each other top-level package in it, in ms."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {MODULE}"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)  # noqa: S603
    whole = 0.0
    costs: dict[str, float] = {}
    # import time: self [us] | cumulative | imported package, indented by who imported it
    lines = [line.split("|") for line in done.stderr.splitlines()]
    # Python itself is up when it has imported site.
    for _, cumulative, name in itertools.islice(
        itertools.dropwhile(lambda columns: columns[-1] != " site", lines), 1, None
    ):
        cost = int(cumulative) / 1e3
        if not name.startswith("  "):
            whole += cost
        package = name.strip().partition(".")[0]
        if package != OWN_PACKAGE:
            costs[package] = max(costs.get(package, 0.0), cost)
    return whole, costs
