"""The published contract, on both table layouts."""

import datetime as dt
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import make_dsn

from tests.support import factories
from tests.support.factories import DOCTOR, KEYS, UTC, CasesDatabase, case, in_json
from tests.support.paths import PUBLISHED

URL = "/cases/all_cases"


def get(client: FlaskClient, user_id: str = DOCTOR, **kwargs: Any) -> list[dict[str, Any]]:
    """Send a request; returns its cases, after checking all other rules of the contract for a 200."""
    response = client.get(URL, query_string={"user_id": user_id}, **kwargs)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    body = response.get_json()
    assert list(body) == ["cases"]
    assert all(tuple(found) == KEYS for found in body["cases"])
    cases: list[dict[str, Any]] = body["cases"]
    return cases


def published_cases() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads(PUBLISHED.read_text())["cases"]
    return cases


def test_the_published_example_is_served_byte_for_byte(client: FlaskClient, database: CasesDatabase) -> None:
    database.add(*published_cases())
    response = client.get(f"{URL}?user_id={DOCTOR}", headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    # The published file is indented; keys, order, values and escapes are compared byte for byte.
    assert (
        json.dumps(json.loads(response.data), indent=2, ensure_ascii=False) == PUBLISHED.read_text().strip()
    )
    assert response.data == json.dumps({"cases": published_cases()}, separators=(",", ":")).encode()


def test_cases_have_insert_order_whatever_created_at_is(client: FlaskClient, database: CasesDatabase) -> None:
    start = dt.datetime(2026, 5, 1, tzinfo=UTC)
    cases = [case(created_at=start + dt.timedelta(days=offset)) for offset in (3, 1, 2, 1, 0)]
    for inserted in cases:
        database.add(inserted)
        database.add_decoys()
    assert get(client) == [in_json(inserted) for inserted in cases]


def test_an_update_does_not_change_the_order(client: FlaskClient, database: CasesDatabase) -> None:
    cases = [case(), case(), case()]
    database.add(*cases)
    factories.execute(
        database.owner,
        f"UPDATE {database.layout.relation} SET status = 'completed' WHERE case_id = %s",
        [cases[0]["case_id"]],
    )
    assert [found["case_id"] for found in get(client)] == [inserted["case_id"] for inserted in cases]


def test_a_doctor_without_cases_gets_an_empty_list(client: FlaskClient) -> None:
    assert client.get(URL, query_string={"user_id": DOCTOR}).data == b'{"cases":[]}'


def test_the_letter_case_of_user_id_does_not_matter(client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    assert get(client, DOCTOR.upper()) == get(client, DOCTOR.lower()) != []


def test_null_is_returned_as_null(client: FlaskClient, database: CasesDatabase) -> None:
    empty = case(case_summary=None, status=None, created_at=None, updated_at=None)
    database.add(empty)
    assert get(client) == [in_json(empty)]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("2026-03-04T10:30:00Z", "2026-03-04T10:30:00Z"),
        ("2026-03-04T10:30:00.123456Z", "2026-03-04T10:30:00.123456Z"),
        ("2026-03-04T10:30:00.000001Z", "2026-03-04T10:30:00.000001Z"),
        ("2026-03-04T10:30:00.5Z", "2026-03-04T10:30:00.500000Z"),
        ("2026-03-04T10:30:00+05:30", "2026-03-04T05:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_times_are_utc_in_any_time_zone_of_the_session(
    database: CasesDatabase, zone: str, stored: str, expected: str
) -> None:
    database.add(case(created_at=stored, updated_at=stored))
    with factories.client_on(make_dsn(database.service_dsn, options=f"-c TimeZone={zone}")) as client:
        (found,) = get(client)
    assert (found["created_at"], found["updated_at"]) == (expected, expected)


@pytest.mark.parametrize("status", ["pending", "analyzing", "processing", "completed", "failed", "", "何か"])
def test_any_status_is_returned_unchanged(client: FlaskClient, database: CasesDatabase, status: str) -> None:
    database.add(case(status=status))
    assert [found["status"] for found in get(client)] == [status]


@pytest.mark.parametrize("age", [-1, 0, 150, 2**31 - 1, -(2**31)])
def test_any_age_is_returned_unchanged(client: FlaskClient, database: CasesDatabase, age: int) -> None:
    database.add(case(patient_age=age))
    assert [found["patient_age"] for found in get(client)] == [age]


# Every string that Postgres can store: all of Unicode except NUL and the surrogates.
postgres_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(name=postgres_text, gender=postgres_text, summary=st.none() | postgres_text, status=postgres_text)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_returned_unchanged(
    client: FlaskClient, database: CasesDatabase, name: str, gender: str, summary: str | None, status: str
) -> None:
    stored = case(patient_name=name, patient_gender=gender, case_summary=summary, status=status)
    database.add(stored)
    assert get(client)[-1] == in_json(stored)


def test_head_has_the_headers_of_get_and_no_body(client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    headers = {"X-Request-ID": "the-same"}
    response = client.get(URL, query_string={"user_id": DOCTOR}, headers=headers)
    head = client.head(URL, query_string={"user_id": DOCTOR}, headers=headers)
    assert (head.status_code, head.data) == (200, b"")
    assert dict(head.headers) == dict(response.headers)


def test_unknown_parameters_change_nothing(client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    plain = client.get(f"{URL}?user_id={DOCTOR}")
    extended = client.get(f"{URL}?x=1&user_id={DOCTOR}&x=2&user_id[]=3&USER_ID=4&&=&%FF=%00")
    assert extended.status_code == 200
    assert extended.data == plain.data


@pytest.mark.parametrize("body", [b"", b"{}", b"{not json", b"\xff" * 1000])
def test_content_type_and_body_change_nothing(
    client: FlaskClient, database: CasesDatabase, body: bytes
) -> None:
    database.add(case())
    plain = client.get(f"{URL}?user_id={DOCTOR}")
    sent = client.get(f"{URL}?user_id={DOCTOR}", data=body, headers={"Content-Type": "application/json"})
    assert (sent.status_code, sent.data) == (200, plain.data)


def test_every_cache_must_revalidate_a_response(client: FlaskClient) -> None:
    response = client.get(f"{URL}?user_id={DOCTOR}")
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert response.headers["Vary"] == "Authorization"
