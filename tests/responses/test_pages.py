"""Pages: links that lead on while cases come and go, places that are none, and what a page costs."""

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

from medmitra_cases.dao import fetch
from medmitra_cases.models import CaseQuery
from tests.support.factories import DOCTOR, CasesDatabase, case, client_on, execute
from tests.support.links import links
from tests.support.plans import Plan

URL = "/cases/all_cases"
OTHER = DOCTOR[:-1] + "7"
UNKNOWN_PLACE = {"detail": "after must be the case_id of one of this doctor's cases"}


@pytest.fixture(params=["row_versions", "body"])
def reader(database: CasesDatabase, request: pytest.FixtureRequest) -> Iterator[FlaskClient]:
    """A client of the service, with either source of tags."""
    with client_on(database.service_dsn, MEDMITRA_ETAG_SOURCE=request.param) as client:
        yield client


@pytest.fixture
def writer(database: CasesDatabase) -> Iterator[Connection]:
    """A connection of somebody else's, who may change every case."""
    with closing(psycopg2.connect(database.owner_dsn)) as connection:
        connection.autocommit = True
        yield connection


def get(client: FlaskClient, **sent: str) -> TestResponse:
    response = client.get(URL, query_string={"user_id": DOCTOR, **sent})
    assert response.status_code == 200, response.get_json()
    return response


def names(response: TestResponse) -> list[str]:
    return [found["patient_name"] for found in response.get_json()["cases"]]


def numbered(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Cases whose patients are called 1, 2, 3, …"""
    return [case(patient_name=str(number), **columns) for number in range(1, count + 1)]


def delete(database: CasesDatabase, *cases: dict[str, Any]) -> None:
    for columns in cases:
        relation = database.layout.relation
        execute(database.owner, f"DELETE FROM {relation} WHERE case_id = %s", [columns["case_id"]])


def walk(client: FlaskClient, **sent: str) -> Iterator[TestResponse]:
    """The pages that rel=next leads to, from the first to the last."""
    while True:
        response = get(client, **sent)
        yield response
        if "next" not in links(response):
            return
        sent = links(response)["next"]


@pytest.mark.parametrize("sent", [{}, {"status": "pending"}, {"sort_order": "desc"}, {"search": "patient"}])
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_a_walk_meets_all_that_stay_once_while_others_come_and_go(
    client: FlaskClient, database: CasesDatabase, writer: Connection, sent: dict[str, str], limit: int
) -> None:
    """Any case may go but the one to go on after; that one may cease to match."""
    pick = random.Random(limit)
    relation = database.layout.relation
    stay = [case(patient_name=f"Patient {number}") for number in range(30)]
    go = [case(patient_name="Patient who leaves") for _ in range(30)]
    database.add(*itertools.chain(*zip(stay, go, strict=True)))
    met: list[str] = []
    for response in walk(client, limit=str(limit), **sent):
        page = response.get_json()["cases"]
        met += [found["case_id"] for found in page]
        place = page[-1]["case_id"]
        for columns in pick.sample(go, 3):
            changed = [columns["case_id"], place]
            execute(writer, f"DELETE FROM {relation} WHERE case_id = %s AND case_id <> %s", changed)
        if page[-1]["patient_name"] == "Patient who leaves":
            change = f"UPDATE {relation} SET status = 'completed', patient_name = '' WHERE case_id = %s"
            execute(writer, change, [place])
        # Of the new ones the walk may meet some, and must end nevertheless.
        if len(met) < 50:
            database.add(case(patient_name="Patient who comes"))
    assert len(met) == len({*met})
    expected = [columns["case_id"] for columns in stay]
    assert [case_id for case_id in met if case_id in expected] == (
        expected[::-1] if "sort_order" in sent else expected
    )


@pytest.mark.parametrize("sent", [{}, {"sort_order": "desc"}, {"gender": "female"}])
def test_there_and_back_again(client: FlaskClient, database: CasesDatabase, sent: dict[str, str]) -> None:
    for columns in numbered(23):
        database.add(columns, case(patient_gender="male" if "gender" in sent else "female", user_id=OTHER))
    there = [*walk(client, limit="5", **sent)]
    assert [len(names(response)) for response in there] == [5, 5, 5, 5, 3]
    response = there[-1]
    for before in there[-2::-1]:
        response = get(client, **links(response)["prev"])
        assert response.data == before.data
    assert "prev" not in links(response)


@pytest.mark.parametrize(
    "sent",
    [
        *({}, {"limit": "5"}, {"limit": "5", "page": "3"}, {"sort_order": "desc"}, {"sort_by": "status"}),
        *({"sort_by": "status", "limit": "5"}, {"status": "nothing has this"}, {"search": "a", "page": "1"}),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}, {"If-None-Match": '"x", W/"y"'}])
def test_a_place_that_is_none_of_the_doctors_is_refused(
    reader: FlaskClient, database: CasesDatabase, sent: dict[str, str], headers: dict[str, str]
) -> None:
    """Whether it is deleted, another doctor's or nobody's cannot be told from the answer."""
    deleted, others, *_ = cases = [case(), case(user_id=OTHER), case()]
    database.add(*cases)
    delete(database, deleted)
    answers = []
    for after in (deleted["case_id"], others["case_id"], str(uuid.uuid4())):
        asked = {"user_id": DOCTOR, "after": after, **sent}
        named = {"X-Request-ID": "the-same", **headers}
        response = reader.get(URL, query_string=asked, headers=named)
        assert response.status_code == 400
        assert response.get_json() == UNKNOWN_PLACE
        answers.append((response.data, dict(response.headers)))
    assert answers[0] == answers[1] == answers[2]
    assert not {"Link", "X-Total-Count", "ETag"} & {*answers[0][1]}


def test_a_place_that_does_not_match_is_a_place(client: FlaskClient, database: CasesDatabase) -> None:
    cases = numbered(5)
    cases[2]["status"] = "failed"
    database.add(*cases)
    place = cases[2]["case_id"]
    assert names(get(client, after=place, status="pending")) == ["4", "5"]
    assert names(get(client, after=place, status="pending", sort_order="desc")) == ["2", "1"]
    page = get(client, after=place, status="pending", limit="1")
    assert names(page) == ["4"]
    assert page.headers["X-Total-Count"] == "4"
    assert names(get(client, **links(page)["prev"])) == ["2"]


@pytest.mark.parametrize("sent", [{}, {"limit": "10"}, {"status": "pending"}, {"sort_by": "patient_name"}])
def test_what_is_new_since(reader: FlaskClient, database: CasesDatabase, sent: dict[str, str]) -> None:
    cases = numbered(8)
    database.add(*cases[:5])
    sent = {"user_id": DOCTOR, "after": cases[4]["case_id"], **sent}
    nothing = reader.get(URL, query_string=sent)
    assert nothing.data == b'{"cases":[]}'
    known = {"If-None-Match": nothing.headers["ETag"]}
    assert reader.get(URL, query_string=sent, headers=known).status_code == 304
    database.add(case(user_id=OTHER))
    assert reader.get(URL, query_string=sent, headers=known).status_code == 304
    database.add(*cases[5:])
    response = reader.get(URL, query_string=sent, headers=known)
    assert response.status_code == 200
    assert names(response) == ["6", "7", "8"]
    assert names(get(reader, **{**sent, "after": cases[7]["case_id"]})) == []


def test_pages_beyond_the_end(reader: FlaskClient, database: CasesDatabase) -> None:
    cases = numbered(12)
    database.add(*cases)
    for sent in ({}, {"sort_by": "created_at"}):
        for page in ("4", "5", "999999999"):
            beyond = get(reader, limit="5", page=page, **sent)
            assert names(beyond) == []
            assert beyond.headers["X-Total-Count"] == "12"
            assert [*links(beyond)] == ["first", "prev", "last"]
            followed = {relation: names(get(reader, **target)) for relation, target in links(beyond).items()}
            assert followed == {
                "first": ["1", "2", "3", "4", "5"],
                "prev": ["11", "12"],
                "last": ["11", "12"],
            }
    end = get(reader, limit="5", after=cases[-1]["case_id"])
    assert names(end) == []
    assert end.headers["X-Total-Count"] == "12"
    assert [*links(end)] == ["first", "prev", "last"]
    assert names(get(reader, **links(end)["prev"])) == ["8", "9", "10", "11", "12"]


@pytest.mark.parametrize("sent", [{}, {"sort_by": "status"}, {"page": "7"}, {"sort_order": "desc"}])
def test_pages_of_nothing(reader: FlaskClient, sent: dict[str, str]) -> None:
    nothing = get(reader, limit="5", **sent)
    assert nothing.data == b'{"cases":[]}'
    assert nothing.headers["X-Total-Count"] == "0"
    assert {"first", "last"} <= {*links(nothing)} <= {"first", "prev", "last"}
    for target in links(nothing).values():
        assert get(reader, **target).data == b'{"cases":[]}'


@pytest.mark.parametrize(
    "sent",
    [
        *({}, {"page": "2"}, {"page": "3"}, {"page": "9"}, {"status": "failed"}, {"sort_order": "desc"}),
        *({"sort_by": "patient_age"}, {"sort_by": "patient_age", "page": "2", "sort_order": "desc"}),
    ],
)
@pytest.mark.parametrize("has_place", [False, True])
def test_304_and_head_have_the_headers_of_the_page(
    reader: FlaskClient, database: CasesDatabase, sent: dict[str, str], has_place: bool
) -> None:
    cases = numbered(12)
    database.add(*cases)
    asked = {"user_id": DOCTOR, "limit": "5", **sent}
    if has_place:
        asked["after"] = cases[3]["case_id"]
    named = {"X-Request-ID": "the-same"}
    page = reader.get(URL, query_string=asked, headers=named)
    assert page.status_code == 200
    assert {"Link", "X-Total-Count"} < {*page.headers.keys()}
    head = reader.head(URL, query_string=asked, headers=named)
    assert (head.status_code, head.data) == (200, b"")
    assert dict(head.headers) == dict(page.headers)

    known = {**named, "If-None-Match": page.headers["ETag"]}
    same = reader.get(URL, query_string=asked, headers=known)
    assert (same.status_code, same.data) == (304, b"")
    of_the_body = {"Content-Type", "Content-Length"}
    assert dict(same.headers) == {
        name: value for name, value in page.headers.items() if name not in of_the_body
    }


@pytest.mark.parametrize("sent", [{}, {"sort_by": "patient_age"}, {"page": "2"}, {"page": "9"}])
def test_a_case_on_another_page_changes_the_tag_with_the_total(
    reader: FlaskClient, database: CasesDatabase, sent: dict[str, str]
) -> None:
    database.add(*numbered(12, patient_age=7))
    asked = {"user_id": DOCTOR, "limit": "5", **sent}
    page = reader.get(URL, query_string=asked)
    known = {"If-None-Match": page.headers["ETag"]}
    database.add(case(patient_age=8))
    after = reader.get(URL, query_string=asked, headers=known)
    assert (after.status_code, after.data) == (200, page.data)
    assert (page.headers["X-Total-Count"], after.headers["X-Total-Count"]) == ("12", "13")


@pytest.mark.parametrize("limit", ["1", "5"])
def test_cases_that_come_while_an_empty_page_is_looked_at(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Whoever follows the links from an empty page misses none that came meanwhile."""
    cases = numbered(4)
    database.add(*cases[:2])
    new = iter(cases[2:])
    fetch_version = fetch.fetch_version

    def add_then_fetch(*args: Any, **kwargs: Any) -> Any:
        database.add(*new)
        return fetch_version(*args, **kwargs)

    monkeypatch.setattr(fetch, "fetch_version", add_then_fetch)
    pages = walk(client, after=cases[1]["case_id"], limit=limit)
    assert [name for response in pages for name in names(response)] == ["3", "4"]


@pytest.fixture
def places(database: CasesDatabase) -> list[str]:
    """The ids of ``DOCTOR``'s 5,000 cases in insertion order, with many of others between and after them."""
    others = [str(uuid.uuid4()) for _ in range(20)]
    database.add_many([DOCTOR, *others[:4]], 15_000)
    database.add_many([DOCTOR], 2_000)
    database.add_many(others, 30_000)
    layout = database.layout
    mine = f"SELECT case_id::text FROM {layout.relation} WHERE {layout.owner_column} = %s ORDER BY id"
    return [case_id for (case_id,) in execute(database.owner, mine, [DOCTOR])]


@pytest.mark.parametrize("sort_order", ["asc", "desc"])
def test_a_page_at_any_place_reads_what_the_first_page_reads(
    database: CasesDatabase, places: list[str], sort_order: str
) -> None:
    first = CaseQuery(DOCTOR, sort_order=sort_order, limit=5)
    for place in (places[5], places[2_500], places[4_994]):
        deep = Plan.of(database, first._replace(after=place))
        *_, scan = deep.page
        assert "Sort" not in {node["Node Type"] for node in deep.page}
        assert re.search(r"\bid\)? [<>] ", scan["Index Cond"]), str(deep)
        assert (scan["Actual Rows"], scan.get("Rows Removed by Filter", 0)) == (5, 0)
        # Both count all that match; beside that, what is around the place.
        assert deep.rows_read <= Plan.of(database, first).rows_read + 30, str(deep)


def test_a_list_that_is_no_page_reads_no_more_than_it_holds(
    database: CasesDatabase, places: list[str]
) -> None:
    for new in (0, 7):
        since = Plan.of(database, CaseQuery(DOCTOR, after=places[-1 - new]))
        assert since.page[0]["Actual Rows"] == new
        assert since.rows_read == new + 1, str(since)  # the place itself
    assert Plan.of(database, CaseQuery(DOCTOR, sort_order="desc")).rows_read == len(places)
