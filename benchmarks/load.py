"""Loads servers with wrk in interleaved rounds."""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.run import BenchmarkError, Run, output_of

SCRIPT = Path(__file__).parent / "wrk.lua"
WARM_UP_SECONDS = 1
PAUSE_SECONDS = 0.1
# Below this rate a turn is twice as long, because a few responses more or less are a large part of all.
SLOW_PER_SECOND = 50

Key = TypeVar("Key")


class Target(NamedTuple):
    """The requests that wrk sends.

    Attributes:
        url: The URL.
        header: A header field of each request, such as ``If-None-Match: "…"``.
        doctors: If given, each request is for a random doctor below this number, instead of the URL's doctor.
        connections: The number of keep-alive connections.
        timeout_seconds: The response time from which a response is late, which is an error.
        beside: The requests that another wrk sends at the same time.
    """

    url: str
    header: str | None = None
    doctors: int | None = None
    connections: int = 8
    timeout_seconds: int = 10
    beside: "Target | None" = None


class Turn(NamedTuple):
    """The results of one turn of wrk. Times are in ms.

    Attributes:
        per_second: Responses per second.
        p50: The median response time.
        p99: The time within which 99 % of the responses are complete.
        longest: The longest response time.
        errors: Error statuses, late responses, and failed connections.
        beside: Responses per second of the target beside it; 0 if there is none.
    """

    per_second: float
    p50: float
    p99: float
    longest: float
    errors: int
    beside: float


class Load(NamedTuple):
    """The results of one target in all rounds. ``Turn`` describes them."""

    per_second: Sequence[float]
    p50: Sequence[float]
    p99: Sequence[float]
    longest: Sequence[float]
    errors: Sequence[int]
    beside: Sequence[float]


def measure(run: Run, targets: Mapping[Key, Target]) -> dict[Key, Load]:
    """Load targets in interleaved rounds after a warm-up. Errors let the run fail.

    Args:
        run: The run.
        targets: The targets. The keys are their names in messages. Neighbours are compared most fairly.

    Raises:
        BenchmarkError: wrk fails, or there is no response within a turn.
    """
    seconds = {}
    for key, target in targets.items():
        is_slow = load(target, WARM_UP_SECONDS).per_second < SLOW_PER_SECOND
        seconds[key] = run.effort.seconds * (2 if is_slow else 1)
    turns: dict[Key, list[Turn]] = {key: [] for key in targets}
    for number in range(run.effort.rounds):
        # Each round loads all targets, so that other work on the machine slows all of them down.
        for key in list(targets)[:: -1 if number % 2 else 1]:
            turns[key].append(load(targets[key], seconds[key]))
    loads = {key: Load(*zip(*results, strict=True)) for key, results in turns.items()}
    for key, result in loads.items():
        if not all(result.p50):
            raise BenchmarkError(f"{key}: no response within a turn from {targets[key].url}")
        if any(result.errors):
            run.fail(f"{key}: {sum(result.errors)} errors from {targets[key].url}")
    return loads


def load(target: Target, seconds: int) -> Turn:
    """Load a target for one turn, and return what wrk measured."""
    targets = [target] if target.beside is None else [target, target.beside]
    with ThreadPoolExecutor() as pool:
        turn, *others = pool.map(partial(_wrk, seconds=seconds), targets)
    for other in others:
        turn = turn._replace(beside=other.per_second, errors=turn.errors + other.errors)
    return turn


def _wrk(target: Target, seconds: int) -> Turn:
    connections = target.connections
    options = ["-t1", f"-d{seconds}s", f"-c{connections}", f"--timeout={target.timeout_seconds}s"]
    if target.header is not None:
        options += ["-H", target.header]
    arguments = [] if target.doctors is None else [str(target.doctors)]
    output = output_of("wrk", *options, "-s", SCRIPT, target.url, "--", *arguments)
    found = json.loads(output.splitlines()[-1])
    per_second = found["requests"] / found["microseconds"] * 1e6
    # The server still works on one request of each connection, which would disturb the next turn.
    time.sleep(PAUSE_SECONDS + connections / max(per_second, 1))
    return Turn(per_second, found["p50"] / 1e3, found["p99"] / 1e3, found["max"] / 1e3, found["errors"], 0)
