"""Pages: their links while cases are added and deleted, invalid cursors, and the rows that a page reads."""

import itertools
import random
import re
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from flask.testing import FlaskClient
from psycopg2.extensions import connection as Connection
from werkzeug.test import TestResponse

from medmitra_cases.dao import fetch, whole
from medmitra_cases.models import CaseQuery
from tests.support.factories import DOCTOR, CasesDatabase, case, client_on, execute
from tests.support.links import links
from tests.support.plans import Plan

URL = "/cases/all_cases"
ALL_RELATIONS = ["first", "prev", "next", "last"]
OTHER = DOCTOR[:-1] + "7"
INVALID_CURSOR = {"detail": "after must be the case_id of one of this doctor's cases"}


@pytest.fixture(params=["auto", "body"])
def etag_client(database: CasesDatabase, request: pytest.FixtureRequest) -> Iterator[FlaskClient]:
    """A client of the service, once with each source of ETags."""
    with client_on(database.service_dsn, MEDMITRA_ETAG_SOURCE=request.param) as client:
        yield client


@pytest.fixture
def writer(database: CasesDatabase) -> Iterator[Connection]:
    """A second connection of the owner of the database, who may change every case."""
    with closing(psycopg2.connect(database.owner_dsn)) as connection:
        connection.autocommit = True
        yield connection


def get(client: FlaskClient, **params: str) -> TestResponse:
    response = client.get(URL, query_string={"user_id": DOCTOR, **params})
    assert response.status_code == 200, response.get_json()
    return response


def names(response: TestResponse) -> list[str]:
    return [found["patient_name"] for found in response.get_json()["cases"]]


def numbered(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Cases whose patients are named 1, 2, 3, …"""
    return [case(patient_name=str(number), **columns) for number in range(1, count + 1)]


def delete(database: CasesDatabase, *cases: dict[str, Any]) -> None:
    for columns in cases:
        relation = database.layout.relation
        execute(database.owner, f"DELETE FROM {relation} WHERE case_id = %s", [columns["case_id"]])


def follow_next(client: FlaskClient, **params: str) -> Iterator[TestResponse]:
    """Yield the first page, and each page that rel=next leads to."""
    while True:
        response = get(client, **params)
        yield response
        if "next" not in links(response):
            return
        params = links(response)["next"]


@pytest.mark.parametrize("params", [{}, {"status": "pending"}, {"sort_order": "desc"}, {"search": "patient"}])
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_rel_next_reaches_each_remaining_case_once_while_others_change(
    client: FlaskClient, database: CasesDatabase, writer: Connection, params: dict[str, str], limit: int
) -> None:
    """Writers delete other cases, and change the cursor case so that it no longer matches."""
    rng = random.Random(limit)
    relation = database.layout.relation
    remaining = [case(patient_name=f"Patient {number}") for number in range(30)]
    deleted = [case(patient_name="Patient to delete") for _ in range(30)]
    database.add(*itertools.chain(*zip(remaining, deleted, strict=True)))
    visited: list[str] = []
    for response in follow_next(client, limit=str(limit), **params):
        page = response.get_json()["cases"]
        visited += [found["case_id"] for found in page]
        cursor_id = page[-1]["case_id"]
        for columns in rng.sample(deleted, 3):
            changed = [columns["case_id"], cursor_id]
            execute(writer, f"DELETE FROM {relation} WHERE case_id = %s AND case_id <> %s", changed)
        if page[-1]["patient_name"] == "Patient to delete":
            change = f"UPDATE {relation} SET status = 'completed', patient_name = '' WHERE case_id = %s"
            execute(writer, change, [cursor_id])
        # The pages may reach some of the new cases, but they must end.
        if len(visited) < 50:
            database.add(case(patient_name="Patient added later"))
    assert len(visited) == len({*visited})
    expected = [columns["case_id"] for columns in remaining]
    assert [case_id for case_id in visited if case_id in expected] == (
        expected[::-1] if "sort_order" in params else expected
    )


# A character of four bytes: the longest in a URL.
LONG = "\N{MATHEMATICAL FRAKTUR CAPITAL U}"

# Ids of an existing table that the parameter ``after`` cannot have.
ODD_IDS = [
    "",
    "case-1",
    "a&b=c#d?e",
    '<>,;"\\%25',
    "line\nbreak",
    DOCTOR.upper(),
    f"{{{DOCTOR}}}",
    LONG * 1_000,
]


@pytest.mark.parametrize("layout_database", ["existing_table"], indirect=True)
@pytest.mark.parametrize("params", [{}, {"sort_order": "desc"}, {"sort_by": "status"}, {"search": "p"}])
def test_each_link_can_be_followed_whatever_the_ids_are(
    etag_client: FlaskClient, database: CasesDatabase, params: dict[str, str]
) -> None:
    ids = [*ODD_IDS, *(str(uuid.uuid4()) for _ in range(3)), *(f"case {number}" for number in range(3))]
    database.add(*(case(case_id=case_id) for case_id in ids))
    pages = [*follow_next(etag_client, limit="1", **params)]
    found = [found["case_id"] for page in pages for found in page.get_json()["cases"]]
    assert found == (ids[::-1] if "sort_order" in params else ids)
    for number, page in enumerate(pages):
        targets = {name: get(etag_client, **target) for name, target in links(page).items()}
        assert names(targets["first"]) == names(pages[0])
        assert names(targets["last"]) == names(pages[-1])
        if "prev" in targets:
            assert names(targets["prev"]) == names(pages[number - 1])


FILTERS = [("search",), ("search", "status"), ("search", "status", "gender")]
PAGES = [{"page": "2"}, {"sort_by": "patient_age", "page": "2"}, {"after": DOCTOR, "sort_order": "asc"}]


@pytest.mark.parametrize("text", ["ж", "病", LONG, "%"])
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("params", PAGES)
def test_the_header_stays_below_3_kb_whatever_the_filters_are(
    database: CasesDatabase, params: dict[str, str], filters: tuple[str, ...], text: str
) -> None:
    matching = {"patient_name": 100 * text, "status": 100 * text, "patient_gender": 100 * text}
    database.add(case(case_id=DOCTOR, **matching), *(case(**matching) for _ in range(4)))
    query = {"user_id": DOCTOR, "limit": "1", **params, **dict.fromkeys(filters, 100 * text)}
    origin = "https://a-rather-long-name-of-a-page.clinic.example:8443"
    with client_on(database.service_dsn, MEDMITRA_CORS_ORIGINS=origin) as client:
        fields = {"Origin": origin, "X-Request-ID": "x" * 64}
        response = client.get(URL, query_string=query, headers=fields)
    assert (response.status_code, len(names(response))) == (200, 1)
    assert len(f"HTTP/1.1 200 OK\r\nDate: Sun, 29 Nov 2026 00:00:00 GMT\r\n{response.headers}") < 3_000
    # The more important a link is, the longer it stays.
    relations = [*links(response)] if "Link" in response.headers else []
    assert relations in ([], ["next"], ["prev", "next"], ["first", "prev", "next"], ALL_RELATIONS)
    if filters == ("search",):
        assert "next" in relations


@pytest.mark.parametrize("params", [{}, {"sort_order": "desc"}, {"gender": "female"}])
def test_rel_prev_leads_back_to_the_same_pages(
    client: FlaskClient, database: CasesDatabase, params: dict[str, str]
) -> None:
    for columns in numbered(23):
        database.add(columns, case(patient_gender="male" if "gender" in params else "female", user_id=OTHER))
    forward = [*follow_next(client, limit="5", **params)]
    assert [len(names(response)) for response in forward] == [5, 5, 5, 5, 3]
    response = forward[-1]
    for expected in forward[-2::-1]:
        response = get(client, **links(response)["prev"])
        assert response.data == expected.data
    assert "prev" not in links(response)


@pytest.mark.parametrize(
    "params",
    [
        *({}, {"limit": "5"}, {"limit": "5", "page": "3"}, {"sort_order": "desc"}, {"sort_by": "status"}),
        *({"sort_by": "status", "limit": "5"}, {"status": "nothing has this"}, {"search": "a", "page": "1"}),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}, {"If-None-Match": '"x", W/"y"'}])
def test_a_cursor_that_is_not_the_doctors_case_gets_a_400(
    etag_client: FlaskClient, database: CasesDatabase, params: dict[str, str], headers: dict[str, str]
) -> None:
    """The response is the same for a deleted case, another doctor's case and an unknown id."""
    deleted, others, *_ = cases = [case(), case(user_id=OTHER), case()]
    database.add(*cases)
    delete(database, deleted)
    responses = []
    for after in (deleted["case_id"], others["case_id"], str(uuid.uuid4())):
        query = {"user_id": DOCTOR, "after": after, **params}
        all_headers = {"X-Request-ID": "the-same", **headers}
        response = etag_client.get(URL, query_string=query, headers=all_headers)
        assert response.status_code == 400
        assert response.get_json() == INVALID_CURSOR
        responses.append((response.data, dict(response.headers)))
    assert responses[0] == responses[1] == responses[2]
    assert not {"Link", "X-Total-Count", "ETag"} & {*responses[0][1]}


def test_a_cursor_case_need_not_match_the_filter(client: FlaskClient, database: CasesDatabase) -> None:
    cases = numbered(5)
    cases[2]["status"] = "failed"
    database.add(*cases)
    cursor_id = cases[2]["case_id"]
    assert names(get(client, after=cursor_id, status="pending")) == ["4", "5"]
    assert names(get(client, after=cursor_id, status="pending", sort_order="desc")) == ["2", "1"]
    page = get(client, after=cursor_id, status="pending", limit="1")
    assert names(page) == ["4"]
    assert page.headers["X-Total-Count"] == "4"
    assert names(get(client, **links(page)["prev"])) == ["2"]


@pytest.mark.parametrize("params", [{}, {"limit": "10"}, {"status": "pending"}, {"sort_by": "patient_name"}])
def test_after_returns_the_cases_added_after_the_cursor(
    etag_client: FlaskClient, database: CasesDatabase, params: dict[str, str]
) -> None:
    cases = numbered(8)
    database.add(*cases[:5])
    params = {"user_id": DOCTOR, "after": cases[4]["case_id"], **params}
    empty = etag_client.get(URL, query_string=params)
    assert empty.data == b'{"cases":[]}'
    headers = {"If-None-Match": empty.headers["ETag"]}
    assert etag_client.get(URL, query_string=params, headers=headers).status_code == 304
    database.add(case(user_id=OTHER))
    assert etag_client.get(URL, query_string=params, headers=headers).status_code == 304
    database.add(*cases[5:])
    response = etag_client.get(URL, query_string=params, headers=headers)
    assert response.status_code == 200
    assert names(response) == ["6", "7", "8"]
    assert names(get(etag_client, **{**params, "after": cases[7]["case_id"]})) == []


def test_a_page_after_the_last_one_is_empty_and_links_back(
    etag_client: FlaskClient, database: CasesDatabase
) -> None:
    cases = numbered(12)
    database.add(*cases)
    for params in ({}, {"sort_by": "created_at"}):
        for page in ("4", "5", "999999999"):
            beyond = get(etag_client, limit="5", page=page, **params)
            assert names(beyond) == []
            assert beyond.headers["X-Total-Count"] == "12"
            assert [*links(beyond)] == ["first", "prev", "last"]
            followed = {
                relation: names(get(etag_client, **target)) for relation, target in links(beyond).items()
            }
            assert followed == {
                "first": ["1", "2", "3", "4", "5"],
                "prev": ["11", "12"],
                "last": ["11", "12"],
            }
    after_last = get(etag_client, limit="5", after=cases[-1]["case_id"])
    assert names(after_last) == []
    assert after_last.headers["X-Total-Count"] == "12"
    assert [*links(after_last)] == ["first", "prev", "last"]
    assert names(get(etag_client, **links(after_last)["prev"])) == ["8", "9", "10", "11", "12"]


@pytest.mark.parametrize("params", [{}, {"sort_by": "status"}, {"page": "7"}, {"sort_order": "desc"}])
def test_the_pages_of_an_empty_list_are_empty(etag_client: FlaskClient, params: dict[str, str]) -> None:
    empty = get(etag_client, limit="5", **params)
    assert empty.data == b'{"cases":[]}'
    assert empty.headers["X-Total-Count"] == "0"
    assert {"first", "last"} <= {*links(empty)} <= {"first", "prev", "last"}
    for target in links(empty).values():
        assert get(etag_client, **target).data == b'{"cases":[]}'


@pytest.mark.parametrize(
    "params",
    [
        *({}, {"page": "2"}, {"page": "3"}, {"page": "9"}, {"status": "failed"}, {"sort_order": "desc"}),
        *({"sort_by": "patient_age"}, {"sort_by": "patient_age", "page": "2", "sort_order": "desc"}),
    ],
)
@pytest.mark.parametrize("has_cursor", [False, True])
def test_304_and_head_have_the_headers_of_the_page(
    etag_client: FlaskClient, database: CasesDatabase, params: dict[str, str], has_cursor: bool
) -> None:
    cases = numbered(12)
    database.add(*cases)
    query = {"user_id": DOCTOR, "limit": "5", **params}
    if has_cursor:
        query["after"] = cases[3]["case_id"]
    headers = {"X-Request-ID": "the-same"}
    page = etag_client.get(URL, query_string=query, headers=headers)
    assert page.status_code == 200
    assert {"Link", "X-Total-Count"} < {*page.headers.keys()}
    head = etag_client.head(URL, query_string=query, headers=headers)
    assert (head.status_code, head.data) == (200, b"")
    assert dict(head.headers) == dict(page.headers)

    conditional = {**headers, "If-None-Match": page.headers["ETag"]}
    not_modified = etag_client.get(URL, query_string=query, headers=conditional)
    assert (not_modified.status_code, not_modified.data) == (304, b"")
    body_headers = {"Content-Type", "Content-Length"}
    assert dict(not_modified.headers) == {
        name: value for name, value in page.headers.items() if name not in body_headers
    }


@pytest.mark.parametrize("params", [{}, {"sort_by": "patient_age"}, {"page": "2"}, {"page": "9"}])
def test_a_case_on_another_page_changes_the_etag_and_the_total(
    etag_client: FlaskClient, database: CasesDatabase, params: dict[str, str]
) -> None:
    database.add(*numbered(12, patient_age=7))
    query = {"user_id": DOCTOR, "limit": "5", **params}
    page = etag_client.get(URL, query_string=query)
    headers = {"If-None-Match": page.headers["ETag"]}
    database.add(case(patient_age=8))
    after = etag_client.get(URL, query_string=query, headers=headers)
    assert (after.status_code, after.data) == (200, page.data)
    assert (page.headers["X-Total-Count"], after.headers["X-Total-Count"]) == ("12", "13")


@pytest.mark.parametrize("limit", ["1", "5"])
def test_the_links_of_an_empty_page_lead_to_cases_added_during_the_request(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """The cases are added between two queries of the same request."""
    cases = numbered(4)
    database.add(*cases[:2])
    new = iter(cases[2:])
    fetch_version = fetch.fetch_version

    def add_then_fetch(*args: Any, **kwargs: Any) -> Any:
        database.add(*new)
        return fetch_version(*args, **kwargs)

    monkeypatch.setattr(whole, "fetch_version", add_then_fetch)
    pages = follow_next(client, after=cases[1]["case_id"], limit=limit)
    assert [name for response in pages for name in names(response)] == ["3", "4"]


@pytest.fixture
def case_ids(database: CasesDatabase) -> list[str]:
    """The ids of ``DOCTOR``'s 5,000 cases in insert order, with others' cases between and after them."""
    others = [str(uuid.uuid4()) for _ in range(20)]
    database.add_many([DOCTOR, *others[:4]], 15_000)
    database.add_many([DOCTOR], 2_000)
    database.add_many(others, 30_000)
    layout = database.layout
    select = f"SELECT case_id::text FROM {layout.relation} WHERE {layout.owner_column} = %s ORDER BY id"
    return [case_id for (case_id,) in execute(database.owner, select, [DOCTOR])]


@pytest.mark.parametrize("sort_order", ["asc", "desc"])
def test_a_page_after_any_cursor_reads_as_few_rows_as_the_first_page(
    database: CasesDatabase, case_ids: list[str], sort_order: str
) -> None:
    first = CaseQuery(DOCTOR, sort_order=sort_order, limit=5)
    for cursor_id in (case_ids[5], case_ids[2_500], case_ids[4_994]):
        deep = Plan.of(database, first._replace(after=cursor_id))
        *_, scan = deep.page
        assert "Sort" not in {node["Node Type"] for node in deep.page}
        assert re.search(r"\bid\)? [<>] ", scan["Index Cond"]), str(deep)
        assert (scan["Actual Rows"], scan.get("Rows Removed by Filter", 0)) == (5, 0)
        # Both count all matching cases. The page after a cursor also reads the rows around the cursor.
        assert deep.rows_read <= Plan.of(database, first).rows_read + 30, str(deep)


def test_a_list_without_pages_reads_only_its_own_rows(database: CasesDatabase, case_ids: list[str]) -> None:
    for new in (0, 7):
        since = Plan.of(database, CaseQuery(DOCTOR, after=case_ids[-1 - new]))
        assert since.page[0]["Actual Rows"] == new
        assert since.rows_read == new + 1, str(since)  # and the cursor case
    assert Plan.of(database, CaseQuery(DOCTOR, sort_order="desc")).rows_read == len(case_ids)
