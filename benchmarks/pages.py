"""Pages: the first and the last few of 10,000 cases, beside a short list and beside the whole."""

import http.client
import json
from contextlib import ExitStack

from benchmarks.commands import FASTAPI, OURS
from benchmarks.effort import Effort
from benchmarks.errors import BenchmarkError
from benchmarks.load import measure
from benchmarks.report import Report, rate, times
from benchmarks.services import Service, path, running

CASES = 10_000
LIMIT = 5

# How many times the requests per second of FastAPI's whole list.
WHOLE_TARGET = 100
# How many times what a request takes for a doctor who has but one page.
SHORT_TARGET = 1.5

WHOLE = f"{FASTAPI}, the whole list of {CASES:,}"
SHORT = f"first page of {LIMIT} of {LIMIT}"
FIRST = f"first page of {LIMIT} of {CASES:,}"
LAST = f"last page of {LIMIT} of {CASES:,}, by `after`"


def first_and_last(report: Report, effort: Effort, database_url: str) -> None:
    """Compare our pages with each other and with FastAPI's full answer.

    Args:
        report: Takes the table.
        effort: How often and how long.
        database_url: A database in which doctor number N has N cases, for ``LIMIT`` and ``CASES``.

    Raises:
        BenchmarkError: A server does not start, or a page has not the cases it should have.
    """
    report.say(f"## Pages of {LIMIT}, 8 connections, turns of {effort.seconds} s")
    with ExitStack() as stack:
        ours, fastapi = (stack.enter_context(running(server, database_url)) for server in (OURS, FASTAPI))
        cases = _case_ids(ours, path(CASES))
        pages = {
            SHORT: f"{path(LIMIT)}&limit={LIMIT}",
            FIRST: f"{path(CASES)}&limit={LIMIT}",
            LAST: f"{path(CASES)}&limit={LIMIT}&after={cases[-LIMIT - 1]}",
        }
        if (_case_ids(ours, pages[FIRST]), _case_ids(ours, pages[LAST])) != (cases[:LIMIT], cases[-LIMIT:]):
            raise BenchmarkError(f"the first or the last page of {CASES:,} cases has others than these")
        loads = measure(
            {
                WHOLE: fastapi.url(CASES),
                **{name: f"http://127.0.0.1:{ours.port}{page}" for name, page in pages.items()},
            },
            effort,
        )
    per_second = {name: load.requests_per_second for name, load in loads.items()}
    report.table(
        ["asked", "requests/s", "÷ FastAPI's", f"time ÷ that of {LIMIT} of {LIMIT}", "p99, ms"],
        [
            [
                name,
                rate(load.requests_per_second),
                ""
                if name == WHOLE
                else times(
                    per_second[name] / per_second[WHOLE], at_least=WHOLE_TARGET if name == FIRST else None
                ),
                ""
                if name in (WHOLE, SHORT)
                else times(
                    per_second[SHORT] / per_second[name], at_most=SHORT_TARGET if name == FIRST else None
                ),
                f"{load.p99:,.1f}",
            ]
            for name, load in loads.items()
        ],
    )
    report.say(f"Last page ÷ first, in time: {times(per_second[FIRST] / per_second[LAST])}")
    for name, load in loads.items():
        if load.errors:
            report.fail(f"{load.errors} errors at {name}")


def _case_ids(service: Service, asked: str) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.request("GET", asked)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != http.client.OK:
        raise BenchmarkError(f"status {response.status} when asked for {asked}")
    return [case["case_id"] for case in json.loads(body)["cases"]]
