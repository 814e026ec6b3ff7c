"""Large cases: complete and in order, with the same headers, whether held as a whole or read in batches."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from medmitra_cases.dao.batches import BATCH_BYTES, CaseBatches
from medmitra_cases.dao.statements import LEFT_OUT, BoundQuery
from medmitra_cases.dao.whole import TEXT_BYTES, WHOLE_BYTES, fetch_cases
from medmitra_cases.database import Database
from medmitra_cases.models import CaseQuery
from tests.support.factories import DOCTOR, CasesDatabase, case, in_json

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"


def add(database: CasesDatabase, *sizes: int, column: str = "case_summary") -> list[dict[str, Any]]:
    """Insert cases of ``DOCTOR`` whose texts have these sizes, and return the cases."""
    cases = [case(**{column: "x" * size}) for size in sizes]
    database.add(*cases)
    return cases


@pytest.mark.parametrize(
    ("sizes", "is_whole"),
    [
        pytest.param([TEXT_BYTES] * 3, True, id="first statement"),
        pytest.param([10, TEXT_BYTES + 1, 10], True, id="one larger"),
        pytest.param([20_000, 40_000], True, id="few larger"),
        pytest.param([WHOLE_BYTES // 2] * 2, True, id="just whole"),
        pytest.param([WHOLE_BYTES // 2 + 1] * 2, False, id="just too large"),
        pytest.param([10] * 20 + [WHOLE_BYTES], False, id="one too large"),
        pytest.param([TEXT_BYTES] * 500, False, id="too many"),
    ],
)
@pytest.mark.parametrize("parameters", ["", "&limit=1000", "&min_age=0", "&sort_by=created_at"])
def test_the_list_is_complete_however_large(
    client: FlaskClient, database: CasesDatabase, sizes: list[int], is_whole: bool, parameters: str
) -> None:
    expected = [in_json(columns) for columns in add(database, *sizes)]
    named = {"X-Request-ID": "the-same"}
    response = client.get(CASES_URL + parameters, headers=named)
    assert response.get_json() == {"cases": expected}
    assert response.data == json.dumps(response.get_json(), separators=(",", ":")).encode()
    assert ("Content-Length" in response.headers) == is_whole
    if "limit" in parameters:
        assert response.headers["X-Total-Count"] == str(len(sizes))
        assert 'rel="first"' in response.headers["Link"]
    assert dict(client.head(CASES_URL + parameters, headers=named).headers) == dict(response.headers)
    known = {"If-None-Match": response.headers["ETag"]}
    assert client.get(CASES_URL + parameters, headers=known).status_code == 304
    database.add(case())
    with client.get(CASES_URL + parameters, headers=known) as changed:
        assert changed.status_code == 200


@pytest.mark.parametrize("sizes", [[10, 600], [10, 100_000], [10, 100_000, 3_000_000], [600] * 2_000])
@pytest.mark.parametrize("column", ["patient_name", "patient_gender", "case_summary", "status"])
def test_any_text_can_be_large(
    client: FlaskClient, database: CasesDatabase, sizes: list[int], column: str
) -> None:
    cases = add(database, *sizes, column=column)
    for _ in range(2):  # the second time the size of the texts is known
        assert client.get(CASES_URL).get_json() == {"cases": [in_json(columns) for columns in cases]}


def test_the_text_that_replaces_large_ones_can_be_a_summary(
    client: FlaskClient, database: CasesDatabase
) -> None:
    cases = [case(case_summary=LEFT_OUT), case(status=LEFT_OUT)]
    database.add(*cases)
    assert client.get(CASES_URL).get_json() == {"cases": [in_json(columns) for columns in cases]}


def test_a_list_with_large_cases_can_grow(client: FlaskClient, database: CasesDatabase) -> None:
    expected: list[dict[str, Any]] = []
    for sizes in ([20_000], [30] * 3, [30] * 200, [9_000] * 20, [30_000] * 100, [30] * 2_000):
        expected += map(in_json, add(database, *sizes))
        for _ in range(2):
            assert client.get(CASES_URL).get_json() == {"cases": expected}


def test_texts_that_are_null_are_not_large(client: FlaskClient, database: CasesDatabase) -> None:
    cases = [case(case_summary=None, status=None), case(case_summary="x" * 10_000, status=None)]
    database.add(*cases)
    response = client.get(CASES_URL)
    assert response.get_json() == {"cases": [in_json(columns) for columns in cases]}
    assert "Content-Length" in response.headers


@pytest.mark.parametrize(
    "query",
    [
        CaseQuery(DOCTOR),
        CaseQuery(DOCTOR, limit=1_000),
        CaseQuery(DOCTOR, search="x", sort_by="patient_age", sort_order="desc"),
    ],
)
@pytest.mark.parametrize("size", [3, 1_000])
def test_a_batch_is_limited_in_cases_and_in_bytes(
    service_database: Database, database: CasesDatabase, query: CaseQuery, size: int
) -> None:
    cases = add(database, *([10] * 10), 3 * BATCH_BYTES, *([BATCH_BYTES // 4] * 9), *([10] * 10))
    batches = service_database.read(0, CaseBatches, BoundQuery(query, DOCTOR, True), size)
    first, second = ([batch.rows for batch in reading] for reading in (batches.read_and_rewind(), batches))
    assert first == second
    assert sorted(row[0] for rows in first for row in rows) == sorted(columns["case_id"] for columns in cases)
    for rows in first:
        assert len(rows) <= size
        assert len(rows) == 1 or sum(len(row[5]) for row in rows) <= BATCH_BYTES


def test_the_first_statement_leaves_large_texts_in_the_database(
    service_database: Database, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, 10, 3 * WHOLE_BYTES)
    bound = BoundQuery(CaseQuery(DOCTOR), DOCTOR, True)
    with monkeypatch.context() as patch:
        fetched: list[bytes] = []
        patch.setattr("medmitra_cases.dao.whole._text_bytes", {})
        patch.setattr("medmitra_cases.dao.whole.types_of", lambda cursor: fetched.append(cursor.query))
        assert service_database.read(0, fetch_cases, bound, 2_000) is None
    assert len(fetched) == 2  # at first for cases of 8 kB, then for two larger ones
