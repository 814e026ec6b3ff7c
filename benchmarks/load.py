"""Loads servers with wrk in interleaved rounds."""

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

from benchmarks.run import BenchmarkError, Run, output_of

SCRIPT = Path(__file__).parent / "wrk.lua"
WARM_UP_SECONDS = 1
PAUSE_SECONDS = 0.1

Key = TypeVar("Key")


class Target(NamedTuple):
    """The request that wrk sends.

    Attributes:
        url: The URL.
        header: A header field of each request, such as ``If-None-Match: "…"``.
        doctors: If given, each request is for a random doctor below this number, instead of the URL's doctor.
    """

    url: str
    header: str | None = None
    doctors: int | None = None


class Load(NamedTuple):
    """The results of one turn of wrk, or the medians of several turns. Times are in ms.

    Attributes:
        requests_per_second: Complete responses per second.
        p50: The median response time.
        p99: The time within which 99 % of the responses are complete.
        longest: The longest response time; of several turns the maximum.
        errors: Error statuses, late responses, and failed connections; of several turns the sum.
    """

    requests_per_second: float
    p50: float
    p99: float
    longest: float
    errors: int

    def ratio_to(self, other: "Load") -> float:
        """Divide the requests per second by those of another target in the same rounds."""
        return self.requests_per_second / other.requests_per_second


def measure(
    run: Run, targets: Mapping[Key, Target], *, connections: int = 8, timeout_seconds: int = 10
) -> dict[Key, Load]:
    """Load targets in interleaved rounds after a warm-up, and return the medians. Errors let the run fail.

    Args:
        run: The run.
        targets: The targets. The keys are their names in messages.
        connections: The number of keep-alive connections.
        timeout_seconds: The response time from which a response is late.

    Raises:
        BenchmarkError: wrk fails, or there is no response within a turn.
    """
    turn = partial(load, connections=connections, timeout_seconds=timeout_seconds)
    for target in targets.values():
        turn(target, WARM_UP_SECONDS)
    # Each round loads all targets, so that other work on the machine slows all of them down.
    rounds = [
        {key: turn(target, run.effort.seconds) for key, target in targets.items()}
        for _ in range(run.effort.rounds)
    ]
    medians = {key: _medians([loads[key] for loads in rounds]) for key in targets}
    for key, result in medians.items():
        if not result.requests_per_second:
            raise BenchmarkError(f"{key}: no response within a turn from {targets[key].url}")
        if result.errors:
            run.fail(f"{key}: {result.errors} errors at {connections} connections from {targets[key].url}")
    return medians


def load(target: Target, seconds: int, connections: int = 8, timeout_seconds: int = 10) -> Load:
    """Load a target for one turn, and return what wrk measured. ``measure`` describes the arguments."""
    options = ["-t1", f"-d{seconds}s", f"-c{connections}", f"--timeout={timeout_seconds}s"]
    if target.header is not None:
        options += ["-H", target.header]
    arguments = [] if target.doctors is None else [str(target.doctors)]
    output = output_of("wrk", *options, "-s", SCRIPT, target.url, "--", *arguments)
    found = json.loads(output.splitlines()[-1])
    per_second = found["requests"] / found["microseconds"] * 1e6
    # The server still works on one request of each connection, which would disturb the next turn.
    time.sleep(PAUSE_SECONDS + connections / max(per_second, 1))
    return Load(per_second, found["p50"] / 1e3, found["p99"] / 1e3, found["max"] / 1e3, found["errors"])


def _medians(loads: list[Load]) -> Load:
    return Load(
        requests_per_second=median(load.requests_per_second for load in loads),
        p50=median(load.p50 for load in loads),
        p99=median(load.p99 for load in loads),
        longest=max(load.longest for load in loads),
        errors=sum(load.errors for load in loads),
    )
