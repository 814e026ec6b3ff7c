"""Start-up: from the command to the first response of the service, and to another team's first test."""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.run import Run, figure, output_of
from benchmarks.servers import OURS, running

RESPONSE_TARGET_SECONDS = 0.6
FIRST_TEST_TARGET_SECONDS = 2.0
NEXT_TEST_TARGET_SECONDS = 0.02

PACKAGE = "medmitra_cases"
MODULE = f"{PACKAGE}.cli.main"
SHOWN_PACKAGES = 5

TESTS = 101
# Each test writes down when it begins, and adds a case, as tests do.
SUITE = f"""
import time
import pytest

@pytest.mark.parametrize("number", range({TESTS}))
def test_one(medmitra, number):
    medmitra.add_case(user_id="00000000-0000-4000-8000-000000000000")
    with open("begun", "a") as begun:
        print(time.time(), file=begun)
"""


def first_response(run: Run) -> None:
    """Measure the time from ``medmitra-cases serve`` to the first response, and the time of the imports."""
    run.say("## Start-up: `medmitra-cases serve` to its first response")
    seconds = []
    for _ in range(1 + run.effort.starts):
        begin = time.perf_counter()
        with running(run.database, OURS):
            seconds.append(time.perf_counter() - begin)
    figures = _median_and_longest(seconds, RESPONSE_TARGET_SECONDS)
    run.table(["starts", "median", "longest"], [[str(run.effort.starts), *figures]])
    total, packages = _import_milliseconds()
    slowest = sorted(packages.items(), key=lambda item: item[1], reverse=True)[:SHOWN_PACKAGES]
    run.say(f"Importing `{MODULE}` takes {total:.0f} ms. The slowest packages, with what they import first:")
    run.table(["package", "ms"], [[name, f"{milliseconds:.0f}"] for name, milliseconds in slowest])


def first_test(run: Run) -> None:
    """Measure the time from ``pytest`` to the first test with a case, and from each test to the next."""
    run.say("## Harness: another team's tests, each with the fixture `medmitra` and a case of its own")
    first, following = [], []
    for _ in range(1 + run.effort.starts):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "test_suite.py").write_text(SUITE, encoding="utf-8")
            command_at = time.time()
            output_of(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=Path(folder))
            begun = [float(line) for line in Path(folder, "begun").read_text(encoding="utf-8").split()]
        first.append(begun[0] - command_at)
        following.append((begun[-1] - begun[0]) / (TESTS - 1))
    figures = [
        *_median_and_longest(first, FIRST_TEST_TARGET_SECONDS),
        *_median_and_longest(following, NEXT_TEST_TARGET_SECONDS),
    ]
    run.table(
        ["starts", "first test, median", "longest", "next test, median", "longest"],
        [[str(run.effort.starts), *figures]],
    )


def _median_and_longest(seconds: list[float], target: float) -> list[str]:
    counted = seconds[1:]  # at the first start, Python may compile modules
    return [figure(value, "{:.3g} s", at_most=target) for value in (median(counted), max(counted))]


def _import_milliseconds() -> tuple[float, dict[str, float]]:
    """Measure the import of ``MODULE``, in ms: all of it, and each other top-level package in it."""
    output = output_of(sys.executable, "-X", "importtime", "-c", f"import {MODULE}")
    # Lines such as "import time:  self [us] | cumulative | imported package", nested imports indented.
    _, _, after_startup = output.partition("| site\n")
    total = 0.0
    packages: dict[str, float] = {}
    for line in after_startup.splitlines():
        _, microseconds, name = line.split("|")
        milliseconds = int(microseconds) / 1e3
        if not name.startswith("  "):
            total += milliseconds
        package = name.strip().partition(".")[0]
        if package != PACKAGE:
            packages[package] = max(packages.get(package, 0.0), milliseconds)
    return total, packages
