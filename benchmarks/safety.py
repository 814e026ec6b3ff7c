"""What safety costs: row level security, and a token to verify with each request."""

from contextlib import ExitStack

from benchmarks.commands import OURS, SECRET, WITH_TOKENS, WITHOUT_ROW_SECURITY
from benchmarks.database import doctor_id
from benchmarks.effort import Effort
from benchmarks.load import measure
from benchmarks.report import Report, rate, times
from benchmarks.services import running
from medmitra_cases.auth.tokens import mint_token
from medmitra_cases.settings.settings import Settings

CASES = 50
# Row level security may take a tenth of a request.
TARGETS = {OURS: 1.1}


def per_request(report: Report, effort: Effort, database_url: str) -> None:
    """Compare the service with itself, without row level security and with tokens.

    Args:
        report: Takes the table.
        effort: How often and how long.
        database_url: A database in which doctor number 50 has 50 cases.

    Raises:
        BenchmarkError: A server does not start.
    """
    report.say(f"## What safety costs: {CASES} cases, 8 connections")
    settings = Settings.from_environ({"DATABASE_URL": database_url, "MEDMITRA_JWT_SECRET": SECRET})
    token = mint_token(settings, doctor_id(CASES), minutes=60)
    with ExitStack() as stack:
        urls = {
            name: stack.enter_context(running(name, database_url)).url(CASES)
            for name in (WITHOUT_ROW_SECURITY, OURS, WITH_TOKENS)
        }
        loads = measure(urls, effort, headers={WITH_TOKENS: f"Authorization: Bearer {token}"})
    least = loads[WITHOUT_ROW_SECURITY].requests_per_second
    report.table(
        ["server", "requests/s", "time per request ÷ the first's", "p99, ms"],
        [
            [
                name,
                rate(load.requests_per_second),
                times(least / load.requests_per_second, at_most=TARGETS.get(name)),
                f"{load.p99:,.1f}",
            ]
            for name, load in loads.items()
        ],
    )
    for name, load in loads.items():
        if load.errors:
            report.fail(f"{load.errors} errors from {name}")
