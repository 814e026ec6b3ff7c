"""The harness: how soon another team's first test runs, and what each further one takes."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.effort import Effort
from benchmarks.errors import BenchmarkError
from benchmarks.report import Report, amount

FIRST_TARGET_SECONDS = 2.0
NEXT_TARGET_SECONDS = 0.02
TESTS = 101

# Each test notes when it begins and adds a case, as tests do.
SUITE = f"""
import time
import pytest

@pytest.mark.parametrize("number", range({TESTS}))
def test_one(medmitra, number):
    medmitra.add_case(user_id="00000000-0000-4000-8000-000000000000")
    with open("begun", "a") as begun:
        print(time.time(), file=begun)
"""


def each_test(report: Report, effort: Effort) -> None:
    """Measure from the command ``pytest`` to the first test with a case, and from one test to the next.

    Args:
        report: Takes the table.
        effort: How often pytest is started.

    Raises:
        BenchmarkError: A test failed.
    """
    report.say("## Harness: another team's tests, each with the fixture `medmitra` and a case of its own")
    first, following = [], []
    for _ in range(1 + effort.starts):
        begin = time.time()
        begun = _run()
        first.append(begun[0] - begin)
        following.append((begun[-1] - begun[0]) / (TESTS - 1))
    del first[0], following[0]  # pytest and the modules may have had to be compiled
    report.table(
        ["starts", "first test, median", "longest", "next test, median", "longest"],
        [
            [
                str(effort.starts),
                *(amount(value, "s", FIRST_TARGET_SECONDS) for value in (median(first), max(first))),
                *(amount(value, "s", NEXT_TARGET_SECONDS) for value in (median(following), max(following))),
            ]
        ],
    )


def _run() -> list[float]:
    """Run the suite; returns when each test began, in seconds since the epoch."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEDMITRA_")}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_suite.py").write_text(SUITE, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        ended = subprocess.run(  # noqa: S603
            command, cwd=folder, env=inherited, capture_output=True, text=True, check=False
        )
        if ended.returncode != 0:
            raise BenchmarkError(f"the harness's tests failed: {ended.stdout[-500:]}")
        return [float(line) for line in Path(folder, "begun").read_text(encoding="utf-8").split()]
