"""One run of the benchmark: how much it measures, the report it writes, and the commands it runs."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click

from benchmarks.database import Database

CHECKOUT = Path(__file__).parent.parent


class BenchmarkError(click.ClickException):
    """A command failed, or a server sent another response than it should. The message is one line."""


class Effort(NamedTuple):
    """How much a run measures.

    Attributes:
        rounds: How many turns each target has.
        seconds: The length of a turn. A slow target's turns are twice as long.
        large_table_rows: The rows of the larger table in "Growth with the table".
        starts: How often a command is started in "Start-up" and "Harness".
    """

    rounds: int
    seconds: int
    large_table_rows: int
    starts: int


FULL = Effort(rounds=5, seconds=2, large_table_rows=10_000_000, starts=10)
QUICK = Effort(rounds=1, seconds=2, large_table_rows=200_000, starts=2)


@dataclass
class Run:
    """One run of the benchmark. It collects the report, and prints each part of it at once.

    Attributes:
        effort: How much it measures.
        database: The database that the servers read. Doctor number N has N cases.
        folder: Where results.md and results.svg are written; None if they are not.
        baseline: The command ``medmitra-cases`` of another checkout, which is measured, too.
        rows: The rows of "One process each" that are measured; all if empty.
        failures: One line for each thing that failed.
        paragraphs: The report, in Markdown.
    """

    effort: Effort
    database: Database
    folder: Path | None
    baseline: Path | None = None
    rows: tuple[str, ...] = ()
    failures: list[str] = field(default_factory=list)
    paragraphs: list[str] = field(default_factory=list)

    def say(self, markdown: str) -> None:
        """Add a heading or a paragraph."""
        self.paragraphs.append(markdown)
        click.echo(f"{markdown}\n")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table."""
        lines = [header, ["---"] * len(header), *rows]
        self.say("\n".join(f"| {' | '.join(cells)} |" for cells in lines))

    def fail(self, message: str) -> None:
        """Add one line about something that failed."""
        self.failures.append(message)
        self.say(f"**Failed:** {message}")


def output_of(*command: str | Path, cwd: Path = CHECKOUT, environ: Mapping[str, str] | None = None) -> str:
    """Run a command, and return what it printed on stdout and stderr.

    Args:
        *command: The command.
        cwd: Its working directory.
        environ: Environment variables to add.

    Raises:
        BenchmarkError: Its exit status is not 0.
    """
    done = subprocess.run(  # noqa: S603, the commands are ours
        command,
        cwd=cwd,
        env=environ_with(environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"{command[0]} failed: {' / '.join(done.stdout.splitlines()[-4:])}")
    return done.stdout


def environ_with(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without settings of the service, and with these variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEDMITRA_")}
    return {**inherited, **variables}


def ratios(dividends: Sequence[float], divisors: Sequence[float]) -> list[float]:
    """Divide the values of two targets in the same rounds, pair by pair."""
    return [dividend / divisor for dividend, divisor in zip(dividends, divisors, strict=True)]


def rate(per_second: Sequence[float]) -> str:
    """Write requests per second, such as ``2,610 [2,480, 2,655]``."""
    return figure(per_second, "{:,.0f}" if median(per_second) >= 100 else "{:.1f}")


def figure(
    values: Sequence[float] | float,
    form: str = "{:.2f}",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> str:
    """Write the median, the lowest and highest value, and the target: ``1.62 [1.49, 1.70] (≥ 1.5 ✓)``."""
    values = values if isinstance(values, Sequence) else [values]
    value = median(values)
    text = form.format(value)
    if min(values) < max(values):
        text += f" [{form.format(min(values))}, {form.format(max(values))}]"
    if at_least is not None:
        text += f" (≥ {at_least:g} {'✓' if value >= at_least else '✗'})"
    if at_most is not None:
        text += f" (≤ {at_most:g} {'✓' if value <= at_most else '✗'})"
    return text
