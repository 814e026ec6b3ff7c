"""Growth: how the time per request grows with the table, and the time per case with the response."""

from contextlib import ExitStack
from statistics import median

from benchmarks.database import Group, filled_database
from benchmarks.load import Target, measure
from benchmarks.run import Run, figure, ratios
from benchmarks.servers import OURS, running

SMALL_TABLE_ROWS = 10_000
CASES_EACH = 50
# The maximum of the time per request with the large table ÷ that with the small one.
TABLE_TARGET = 1.2

RESPONSE_SIZES = (100, 1_000, 10_000, 100_000)


def with_the_table(run: Run) -> None:
    """Compare a small table with a large one, in requests for 50 cases."""
    run.say(f"## Growth with the table: requests for {CASES_EACH} cases, 8 connections")
    one_doctor: dict[str, Target] = {}
    any_doctor: dict[str, Target] = {}
    with ExitStack() as stack:
        for table_rows in (SMALL_TABLE_ROWS, run.effort.large_table_rows):
            group = Group(first=0, doctors=table_rows // CASES_EACH, cases_each=CASES_EACH)
            filled = filled_database(run.database.owner_dsn, f"bench_{table_rows}", group)
            services = stack.enter_context(running(stack.enter_context(filled), OURS))
            table = f"{table_rows:,} rows"
            one_doctor[table] = Target(services[OURS].url(0))
            any_doctor[table] = Target(services[OURS].url(0), doctors=group.doctors)
        measured = {
            "one doctor's": measure(run, one_doctor),
            "a random doctor's each time": measure(run, any_doctor),
        }
    rows = []
    for requested, loads in measured.items():
        small, large = loads.values()
        milliseconds = [f"{1e3 / median(load.per_second):.3f}" for load in (small, large)]
        growth = figure(ratios(small.per_second, large.per_second), at_most=TABLE_TARGET)
        rows.append([requested, *milliseconds, growth])
    run.table(["cases", *(f"ms per request, {table}" for table in one_doctor), "large ÷ small"], rows)


def with_the_response(run: Run) -> None:
    """Compare short lists with long ones, requested one after the other on one connection."""
    run.say("## Growth with the response: one connection, one request after the other")
    with running(run.database, OURS) as services:
        targets = {size: Target(services[OURS].url(size), connections=1) for size in RESPONSE_SIZES}
        loads = measure(run, targets)
    # Each request has a fixed cost of some hundred µs. A short list divides it among few cases.
    run.table(
        ["cases", "ms per request", "µs per case"],
        [
            [f"{size:,}", figure(load.p50), f"{median(load.p50) * 1e3 / size:.2f}"]
            for size, load in loads.items()
        ],
    )
