"""Loads servers with wrk, turn by turn, and takes the medians."""

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.effort import Effort
from benchmarks.errors import BenchmarkError

SCRIPT = Path(__file__).parent / "wrk.lua"
REFETCH_SECONDS = 0.1


class Load(NamedTuple):
    """What one turn of wrk showed, or several taken together.

    Attributes:
        requests_per_second: Answers per second.
        p99: The time that 99 of 100 answers took at most, in ms.
        maximum: The longest time, in ms.
        errors: Answers other than 2xx, late ones, and failed connections.
    """

    requests_per_second: float
    p99: float
    maximum: float
    errors: int


def measure(
    urls: Mapping[str, str],
    effort: Effort,
    *,
    connections: int = 8,
    timeout_seconds: int = 10,
    doctors: Mapping[str, int] | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Load]:
    """Load servers one after the other, in several rounds.

    Args:
        urls: What is asked of each server.
        effort: How often and how long.
        connections: How many keep-alive connections there are.
        timeout_seconds: How long an answer may take before it counts as an error.
        doctors: For each server how many doctors' cases are asked for at random, instead of the URL's.
        headers: For each server a header field to send, where one is needed.

    Returns:
        For each server the medians; of ``maximum`` the largest, of ``errors`` the sum.

    Raises:
        BenchmarkError: wrk reaches a server no more.
    """

    def turn(name: str, seconds: int) -> Load:
        options = [f"-c{connections}", f"-d{seconds}s", f"--timeout={timeout_seconds}s"]
        if headers and name in headers:
            options += ["-H", headers[name]]
        load = _wrk(options, urls[name], [str(doctors[name])] if doctors else [])
        # wrk leaves without its last answers, one per connection. The server works on them still, which would
        # disturb the next.
        time.sleep(REFETCH_SECONDS + connections / max(load.requests_per_second, 1))
        return load

    for name in urls:
        turn(name, effort.warm_up_seconds)
    # Whatever else the machine is doing, in each round it does it to all of them.
    rounds = [{name: turn(name, effort.seconds) for name in urls} for _ in range(effort.rounds)]
    return {name: _together([loads[name] for loads in rounds]) for name in urls}


def _together(loads: list[Load]) -> Load:
    return Load(
        requests_per_second=median(load.requests_per_second for load in loads),
        p99=median(load.p99 for load in loads),
        maximum=max(load.maximum for load in loads),
        errors=sum(load.errors for load in loads),
    )


def _wrk(options: list[str], url: str, arguments: list[str]) -> Load:
    command = ["wrk", "-t1", *options, "-s", str(SCRIPT), url, "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise BenchmarkError(f"wrk failed: {done.stdout} {done.stderr}".strip())
    found = json.loads(done.stdout.splitlines()[-1])
    return Load(
        requests_per_second=found["requests"] / found["microseconds"] * 1e6,
        p99=found["p99"] / 1e3,
        maximum=found["max"] / 1e3,
        errors=found["errors"],
    )
