"""Filters, search, sorting and pages, compared with a reference in Python that reads the full list."""

import datetime as dt
import random
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from medmitra_cases.responses import cases
from tests.support import factories
from tests.support.factories import DOCTOR, UTC, CasesDatabase, case, in_json
from tests.support.links import ALIASES, links

pytestmark = pytest.mark.parametrize("layout_database", list(factories.LAYOUTS), indirect=True)

URL = "/cases/all_cases"
PAGE_PARAMETERS = {"limit", "page", "after"}

NAMES = [
    "Asha Rao",
    "asha rao",
    "ASHA",
    "100% sure",
    "a_b",
    r"a\b",
    "O'Hara",
    'say "hi"',
    "Zoë",
    "",
    "%",
    "__",
]
SUMMARIES = [
    None,
    "",
    "fever, 50% better",
    "FEVER",
    r"C:\temp",
    "it's_fine",
    "Asha's mother",
    "日本 %s %(x)s",
]
STATUSES = [None, "", "pending", "Pending", "completed", "failed%"]
GENDERS = ["female", "Female", "male", "", "o'ther"]
MOMENTS = [
    None,
    dt.datetime(1, 1, 1, tzinfo=UTC),
    dt.datetime(2026, 3, 3, 23, 59, 59, 999_999, UTC),
    dt.datetime(2026, 3, 4, tzinfo=UTC),
    dt.datetime(2026, 3, 4, 10, 30, tzinfo=UTC),
    dt.datetime(2026, 3, 4, 23, 59, 59, 999_999, UTC),
    dt.datetime(2026, 3, 5, tzinfo=UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
]
AGES = [-1, 0, 1, 17, 18, 2**31 - 1]


def varied_cases() -> list[dict[str, Any]]:
    """Return the same cases each time, in insert order, with few values, so that many values are equal."""
    rng = random.Random(6)
    return [
        case(
            case_id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            patient_name=rng.choice(NAMES),
            patient_age=rng.choice(AGES),
            patient_gender=rng.choice(GENDERS),
            case_summary=rng.choice(SUMMARIES),
            status=rng.choice(STATUSES),
            created_at=rng.choice(MOMENTS),
            updated_at=rng.choice(MOMENTS),
        )
        for _ in range(60)
    ]


CASES = varied_cases()
IDS = [columns["case_id"] for columns in CASES]


@pytest.fixture(scope="module")
def client(layout_database: CasesDatabase) -> Iterator[FlaskClient]:
    """A client of a service with ``CASES``, mixed with the same cases of another doctor."""
    layout_database.clear()
    for columns in CASES:
        layout_database.add(columns, {**columns, "case_id": str(uuid.uuid4()), "user_id": DOCTOR[:-1] + "7"})
    with factories.client_on(layout_database.service_dsn) as client:
        yield client


class Expected(NamedTuple):
    """The response that the reference expects: the page, the total, and the page behind each link."""

    page: list[dict[str, Any]]
    total: int
    targets: dict[str, list[dict[str, Any]]]


def moment(written: str, time_of_date: dt.time) -> dt.datetime:
    if "T" in written:
        return dt.datetime.fromisoformat(written.replace("Z", "+00:00"))
    return dt.datetime.combine(dt.date.fromisoformat(written), time_of_date, UTC)


def has_any(text: str | None, wanted: str | list[str] | None) -> bool:
    return wanted is None or text in ([wanted] if isinstance(wanted, str) else wanted)


def matches(columns: dict[str, Any], query: dict[str, Any]) -> bool:
    created = columns["created_at"]
    texts = (columns["patient_name"], columns["case_summary"] or "", columns["case_id"])
    start, end, since = (query.get(name) for name in ("start_date", "end_date", "updated_since"))
    updated = columns["updated_at"]
    return all(
        [
            has_any(columns["status"], query.get("status")),
            has_any(columns["patient_gender"], query.get("gender")),
            any(query.get("search", "").lower() in text.lower() for text in texts),
            columns["patient_age"] >= int(query.get("min_age", -(10**10))),
            columns["patient_age"] <= int(query.get("max_age", 10**10)),
            start is None or (created is not None and created >= moment(start, dt.time.min)),
            end is None or (created is not None and created <= moment(end, dt.time.max)),
            since is None or (updated is not None and updated >= moment(since, dt.time.min)),
        ]
    )


def reference(query: dict[str, Any]) -> Expected:
    """Compute the response to these parameters, which have snake-case names, from the full list."""
    is_reversed = query.get("sort_order") == "desc"
    key = query.get("sort_by")
    full = CASES[::-1] if is_reversed and key is None else CASES
    after = query.get("after")
    split = 1 + next(at for at, columns in enumerate(full) if columns["case_id"] == after) if after else 0
    before, following = (
        [columns for columns in part if matches(columns, query)] for part in (full[:split], full[split:])
    )
    if key is not None:
        not_null = [columns for columns in following if columns[key] is not None]
        not_null.sort(key=lambda columns: columns[key], reverse=is_reversed)  # sort() is stable
        before, following = [], not_null + [columns for columns in following if columns[key] is None]
    matching = before + following
    if not PAGE_PARAMETERS & {*query} - {"after"}:
        return Expected(following, len(matching), {})

    limit, number = int(query.get("limit", 10)), int(query.get("page", 1))
    last = max(-(-len(matching) // limit), 1)
    start = len(before) + (number - 1) * limit
    targets = {"first": matching[:limit], "last": matching[(last - 1) * limit :]}
    if start + limit < len(matching):
        targets["next"] = matching[start + limit : start + 2 * limit]
    if number > 1:  # from a page after the last one, prev leads to the last one
        targets["prev"] = matching[len(before) + (min(number - 1, last) - 1) * limit :][:limit]
    elif before:
        targets["prev"] = matching[max(start - limit, 0) :][:limit]
    return Expected(matching[start : start + limit], len(matching), targets)


DATES = st.sampled_from(
    [
        *("0001-01-01", "2026-03-03", "2026-03-04", "2026-03-05", "9999-12-31"),
        *("2026-03-04T10:30:00Z", "2026-03-04T10:30:00.000001Z", "2026-03-04T16:00:00+05:30"),
        *("2026-03-03T23:59:59.999999Z", "2026-03-03T20:29:59.999999-03:30", "2026-03-05T00:00Z"),
    ]
)
WORDS = [
    *(
        "",
        "a",
        "ASHA",
        "rao",
        "%",
        "_",
        "\\",
        "'",
        '"',
        "__",
        "a_b",
        "0% S",
        "fever",
        "Z",
        "ë",
        "Ë",
        "本",
        "%s",
    ),
    *(IDS[0], IDS[0].upper(), IDS[1][3:12], "-4"),
]


def once_or_repeated(*texts: str) -> st.SearchStrategy[str | list[str]]:
    text = st.sampled_from(texts)
    return text | st.lists(text, min_size=2, max_size=4)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "status": once_or_repeated("", "pending", "Pending", "completed", "failed%", "%"),
    "gender": once_or_repeated("female", "male", "", "o'ther"),
    "search": st.sampled_from(WORDS),
    "min_age": st.sampled_from(["-999999999", "-1", "0", "18", "999999999"]),
    "max_age": st.sampled_from(["-999999999", "0", "17", "18", "999999999"]),
    "start_date": DATES,
    "end_date": DATES,
    "updated_since": DATES,
    "sort_by": st.sampled_from(["created_at", "updated_at", "patient_name", "patient_age", "status"]),
    "sort_order": st.sampled_from(["asc", "desc"]),
    "limit": st.sampled_from(["1", "2", "3", "5", "20", "59", "60", "1000"]),
    "page": st.sampled_from(["1", "2", "3", "7", "60", "999999999"]),
    "after": st.sampled_from(IDS),
}


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, Any]:
    """Draw some of the parameters. With all of them, hardly any case would match."""
    return {name: draw(VALUES[name]) for name in draw(st.sets(st.sampled_from([*VALUES]), max_size=7))}


def get(client: FlaskClient, query: dict[str, Any]) -> TestResponse:
    response = client.get(URL, query_string=query)
    assert response.status_code == 200, response.get_json()
    return response


def cases_of(response: TestResponse) -> Any:
    return response.get_json()["cases"]


# The request that the web client's library sends for its second page, with all of its filters.
WEB_CLIENT = {
    "page": "2",
    "limit": "3",
    "status": "pending",
    "search": "a",
    "min_age": "-1",
    "max_age": "999999999",
    "start_date": "0001-01-01",
    "end_date": "9999-12-31",
    "sort_by": "created_at",
    "sort_order": "desc",
}


@example(query=WEB_CLIENT, uses_aliases=True, sends_all=False, streams=False)
@example(query={"search": IDS[0].upper()}, uses_aliases=False, sends_all=True, streams=False)
@settings(max_examples=max(200, settings().max_examples), deadline=None)
@given(query=parameters(), uses_aliases=st.booleans(), sends_all=st.booleans(), streams=st.booleans())
def test_every_combination_of_parameters_matches_the_reference(
    client: FlaskClient, query: dict[str, Any], uses_aliases: bool, sends_all: bool, streams: bool
) -> None:
    """The response and the pages behind its links are those of the reference.

    A client that sends all parameters leaves the other ones empty, apart from texts.
    """
    sent_names = {name: ALIASES.get(name, name) if uses_aliases else name for name in VALUES}
    sent = {"user_id": DOCTOR, **{sent_names[name]: value for name, value in query.items()}}
    emptied = {*VALUES} - {*query, "status", "gender", "search"} if sends_all else set()
    expected = reference(query)
    with pytest.MonkeyPatch.context() as patch:
        if streams:
            patch.setattr(cases, "WHOLE_CASES", 4)
            patch.setattr(cases, "CHUNK_CASES", 3)
        response = get(client, {**{sent_names[name]: "" for name in emptied}, **sent})
        assert cases_of(response) == [in_json(columns) for columns in expected.page]

    is_page = bool({"limit", "page"} & {*query})
    event(f"page: {is_page}, sorted: {'sort_by' in query}, after: {'after' in query}")
    event(f"a case matches: {expected.page != []}")
    assert ("Content-Length" in response.headers) == (is_page or not streams or len(expected.page) <= 4)
    assert response.headers.get("X-Total-Count") == (str(expected.total) if is_page else None)
    assert ("Link" in response.headers) == is_page
    if not is_page:
        return

    filters = {name: value for name, value in sent.items() if name not in PAGE_PARAMETERS}
    targets = links(response)
    assert targets.keys() == expected.targets.keys()
    for relation, target in targets.items():
        assert {name: value for name, value in target.items() if name not in PAGE_PARAMETERS} == filters
        assert target["limit"] == query.get("limit", "10")
        assert cases_of(get(client, target)) == [in_json(columns) for columns in expected.targets[relation]]
        if "sort_by" in query:
            assert target.get("after") == query.get("after")
        elif relation == "next":
            assert target == {**filters, "limit": target["limit"], "after": expected.page[-1]["case_id"]}
        elif relation in ("first", "last"):
            assert "after" not in target
