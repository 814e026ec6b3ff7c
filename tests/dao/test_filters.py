"""Filters, search, sorting and pages against a plain Python reference over the full list."""

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

URL = "/cases/all_cases"
OF_THE_PAGE = {"limit", "page", "after"}

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
    """The same cases every time, in insertion order: few values, so that many tie."""
    pick = random.Random(6)
    return [
        case(
            case_id=str(uuid.UUID(int=pick.getrandbits(128), version=4)),
            patient_name=pick.choice(NAMES),
            patient_age=pick.choice(AGES),
            patient_gender=pick.choice(GENDERS),
            case_summary=pick.choice(SUMMARIES),
            status=pick.choice(STATUSES),
            created_at=pick.choice(MOMENTS),
            updated_at=pick.choice(MOMENTS),
        )
        for _ in range(60)
    ]


CASES = varied_cases()
IDS = [columns["case_id"] for columns in CASES]


@pytest.fixture(scope="module")
def reader(layout_database: CasesDatabase) -> Iterator[FlaskClient]:
    """A service with these cases among those of others that match as well."""
    layout_database.clear()
    for columns in CASES:
        layout_database.add(columns, {**columns, "case_id": str(uuid.uuid4()), "user_id": DOCTOR[:-1] + "7"})
    with factories.client_on(layout_database.service_dsn) as client:
        yield client


class Expected(NamedTuple):
    """What the reference makes of a request: the page, how many there are, and where each link leads."""

    page: list[dict[str, Any]]
    total: int
    targets: dict[str, list[dict[str, Any]]]


def moment(written: str, time_of_date: dt.time) -> dt.datetime:
    if "T" in written:
        return dt.datetime.fromisoformat(written.replace("Z", "+00:00"))
    return dt.datetime.combine(dt.date.fromisoformat(written), time_of_date, UTC)


def matches(columns: dict[str, Any], asked: dict[str, str]) -> bool:
    created = columns["created_at"]
    texts = (columns["patient_name"], columns["case_summary"] or "", columns["case_id"])
    start, end = asked.get("start_date"), asked.get("end_date")
    return all(
        [
            columns["status"] == asked.get("status", columns["status"]),
            columns["patient_gender"] == asked.get("gender", columns["patient_gender"]),
            any(asked.get("search", "").lower() in text.lower() for text in texts),
            columns["patient_age"] >= int(asked.get("min_age", -(10**10))),
            columns["patient_age"] <= int(asked.get("max_age", 10**10)),
            start is None or (created is not None and created >= moment(start, dt.time.min)),
            end is None or (created is not None and created <= moment(end, dt.time.max)),
        ]
    )


def reference(asked: dict[str, str]) -> Expected:
    """The answer to these parameters, in their snake case, worked out from the full list."""
    backwards = asked.get("sort_order") == "desc"
    key = asked.get("sort_by")
    full = CASES[::-1] if backwards and key is None else CASES
    after = asked.get("after")
    place = 1 + next(at for at, columns in enumerate(full) if columns["case_id"] == after) if after else 0
    before, ahead = (
        [columns for columns in part if matches(columns, asked)] for part in (full[:place], full[place:])
    )
    if key is not None:
        known = [columns for columns in ahead if columns[key] is not None]
        known.sort(key=lambda columns: columns[key], reverse=backwards)  # which keeps the order of ties
        before, ahead = [], known + [columns for columns in ahead if columns[key] is None]
    whole = before + ahead
    if not OF_THE_PAGE & {*asked} - {"after"}:
        return Expected(ahead, len(whole), {})

    limit, number = int(asked.get("limit", 10)), int(asked.get("page", 1))
    last = max(-(-len(whole) // limit), 1)
    start = len(before) + (number - 1) * limit
    targets = {"first": whole[:limit], "last": whole[(last - 1) * limit :]}
    if start + limit < len(whole):
        targets["next"] = whole[start + limit : start + 2 * limit]
    if number > 1:  # from far beyond the end, back to where there is something
        targets["prev"] = whole[len(before) + (min(number - 1, last) - 1) * limit :][:limit]
    elif before:
        targets["prev"] = whole[max(start - limit, 0) :][:limit]
    return Expected(whole[start : start + limit], len(whole), targets)


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
VALUES = {
    "status": st.sampled_from(["", "pending", "Pending", "completed", "failed%", "%"]),
    "gender": st.sampled_from(["female", "male", "", "o'ther"]),
    "search": st.sampled_from(WORDS),
    "min_age": st.sampled_from(["-999999999", "-1", "0", "18", "999999999"]),
    "max_age": st.sampled_from(["-999999999", "0", "17", "18", "999999999"]),
    "start_date": DATES,
    "end_date": DATES,
    "sort_by": st.sampled_from(["created_at", "updated_at", "patient_name", "patient_age", "status"]),
    "sort_order": st.sampled_from(["asc", "desc"]),
    "limit": st.sampled_from(["1", "2", "3", "5", "20", "59", "60", "1000"]),
    "page": st.sampled_from(["1", "2", "3", "7", "60", "999999999"]),
    "after": st.sampled_from(IDS),
}


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, str]:
    """Some of the parameters: with all of them, hardly a case would match."""
    return {name: draw(VALUES[name]) for name in draw(st.sets(st.sampled_from([*VALUES]), max_size=7))}


def get(client: FlaskClient, sent: dict[str, str]) -> TestResponse:
    response = client.get(URL, query_string=sent)
    assert response.status_code == 200, response.get_json()
    return response


def found(response: TestResponse) -> Any:
    return response.get_json()["cases"]


# What the web client's library sends for its second page, with all of its filters.
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


@example(asked=WEB_CLIENT, of_the_web_client=True, streams=False)
@example(asked={"search": IDS[0].upper()}, of_the_web_client=False, streams=False)
@settings(max_examples=max(500, settings().max_examples), deadline=None)
@given(asked=parameters(), of_the_web_client=st.booleans(), streams=st.booleans())
def test_every_combination(
    reader: FlaskClient, asked: dict[str, str], of_the_web_client: bool, streams: bool
) -> None:
    """Every combination answers as the reference does, and so does what its links lead to."""
    spelled = {name: ALIASES.get(name, name) if of_the_web_client else name for name in asked}
    sent = {"user_id": DOCTOR, **{spelled[name]: value for name, value in asked.items()}}
    expected = reference(asked)
    with pytest.MonkeyPatch.context() as patch:
        if streams:
            patch.setattr(cases, "WHOLE_CASES", 4)
            patch.setattr(cases, "CHUNK_CASES", 3)
        response = get(reader, sent)
        assert found(response) == [in_json(columns) for columns in expected.page]

    is_page = bool({"limit", "page"} & {*asked})
    event(f"page: {is_page}, sorted: {'sort_by' in asked}, after: {'after' in asked}")
    event(f"a case matches: {expected.page != []}")
    assert ("Content-Length" in response.headers) == (is_page or not streams or len(expected.page) <= 4)
    assert response.headers.get("X-Total-Count") == (str(expected.total) if is_page else None)
    assert ("Link" in response.headers) == is_page
    if not is_page:
        return

    kept = {name: value for name, value in sent.items() if name not in OF_THE_PAGE}
    followed = links(response)
    assert followed.keys() == expected.targets.keys()
    for relation, target in followed.items():
        assert {name: value for name, value in target.items() if name not in OF_THE_PAGE} == kept
        assert target["limit"] == asked.get("limit", "10")
        assert found(get(reader, target)) == [in_json(columns) for columns in expected.targets[relation]]
        if "sort_by" in asked:
            assert target.get("after") == asked.get("after")
        elif relation == "next":
            assert target == {**kept, "limit": target["limit"], "after": expected.page[-1]["case_id"]}
        elif relation in ("first", "last"):
            assert "after" not in target
