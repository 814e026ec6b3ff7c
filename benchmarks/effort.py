"""How much work a run of the benchmark does."""

from typing import NamedTuple


class Effort(NamedTuple):
    """How often and how long things are measured.

    Attributes:
        rounds: How often each server has its turn in an interleaved measurement.
        seconds: How long a turn of wrk lasts.
        warm_up_seconds: How long a server is asked before it is measured.
        large_table_rows: The rows of the larger table in "Growth".
        starts: How often the command is started in "Start-up".
    """

    rounds: int
    seconds: int
    warm_up_seconds: int
    large_table_rows: int
    starts: int


FULL = Effort(rounds=5, seconds=3, warm_up_seconds=2, large_table_rows=10_000_000, starts=10)
QUICK = Effort(rounds=1, seconds=1, warm_up_seconds=1, large_table_rows=200_000, starts=2)
