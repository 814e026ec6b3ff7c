"""Start-up: from the command to the first response of the service, and to another team's first test."""

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.run import Run, figure, output_of
from benchmarks.servers import OURS, running

RESPONSE_TARGET_SECONDS = 0.35
FIRST_TEST_TARGET_SECONDS = 2.0
NEXT_TEST_TARGET_SECONDS = 0.02

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
    """Measure the time from ``medmitra-cases serve`` to the first response."""
    run.say("## Start-up: `medmitra-cases serve` to its first response")
    seconds = []
    for _ in range(1 + run.effort.starts):
        begin = time.perf_counter()
        with running(run.database, OURS):
            seconds.append(time.perf_counter() - begin)
    figures = [str(run.effort.starts), _seconds(seconds, RESPONSE_TARGET_SECONDS)]
    run.table(["starts", "first response, median"], [figures])


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
    figures = [_seconds(first, FIRST_TEST_TARGET_SECONDS), _seconds(following, NEXT_TEST_TARGET_SECONDS)]
    run.table(["starts", "first test, median", "next test, median"], [[str(run.effort.starts), *figures]])


def _seconds(seconds: list[float], target: float) -> str:
    return figure(seconds[1:], "{:.3g} s", at_most=target)  # at the first start, Python may compile modules
