"""A valid user_id is one canonical UUID, given once. Any other gets a 400 without a database query."""

import uuid
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from medmitra_cases.schemas import query_fields
from medmitra_cases.schemas.query_fields import canonical_uuid
from tests.support.factories import DOCTOR

URL = "/cases/all_cases"
NOT_A_UUID = "user_id must be a UUID written like b8acad4b-4944-4d66-b405-de70886e7248"


def error_detail(client: FlaskClient, query: str) -> str:
    """Send a raw query string; returns the detail of its 400."""
    response = client.get(URL, environ_overrides={"QUERY_STRING": query})
    assert response.status_code == 400, query
    assert response.content_type == "application/json"
    assert list(response.get_json()) == ["detail"]
    detail: str = response.get_json()["detail"]
    return detail


@pytest.mark.parametrize(
    "query", ["", "user_id[]=" + DOCTOR, "USER_ID=" + DOCTOR, "userId=" + DOCTOR, "a;user_id=1"]
)
def test_a_missing_user_id_gets_a_400(client_without_database: FlaskClient, query: str) -> None:
    assert error_detail(client_without_database, query) == "user_id is missing"


@pytest.mark.parametrize(
    ("query", "times"),
    [
        (f"user_id={DOCTOR}&user_id={DOCTOR}", 2),
        (f"user_id={DOCTOR}&user_id=", 2),
        (f"user_id=&x=1&user_id={DOCTOR}&%75ser_id=1", 3),
    ],
)
def test_a_repeated_user_id_gets_a_400(client_without_database: FlaskClient, query: str, times: int) -> None:
    assert error_detail(client_without_database, query) == f"user_id must be given once, not {times} times"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param("%20", id="blank"),
        pytest.param("not-a-uuid", id="word"),
        pytest.param("null", id="null"),
        pytest.param(DOCTOR.replace("-", ""), id="no dashes"),
        pytest.param("{" + DOCTOR + "}", id="braces"),
        pytest.param("urn:uuid:" + DOCTOR, id="urn"),
        pytest.param("b8acad4b4-944-4d66-b405-de70886e7248", id="misplaced dash"),
        pytest.param(DOCTOR[:-1], id="short"),
        pytest.param(DOCTOR + "0", id="long"),
        pytest.param(DOCTOR[:-1] + "g", id="not hexadecimal"),
        pytest.param("+" + DOCTOR, id="leading blank"),
        pytest.param(DOCTOR + "%20", id="trailing blank"),
        pytest.param(DOCTOR + "%0A", id="trailing newline"),
        pytest.param(DOCTOR + "%00", id="trailing NUL"),
        pytest.param("%00", id="NUL"),
        pytest.param("%FF%FE", id="broken UTF-8"),
        pytest.param(DOCTOR[:-1] + "%ED%A0%80", id="surrogate"),
        pytest.param(DOCTOR.replace("8", quote("٨")), id="Arabic digits"),
        pytest.param(DOCTOR.replace("8", "%EF%BC%98"), id="fullwidth digits"),
        pytest.param(DOCTOR.replace("-", "%E2%80%90"), id="Unicode hyphens"),
        pytest.param(DOCTOR.replace("b8", quote("ß8")), id="other letters"),
        pytest.param("'%20OR%201=1%20--", id="SQL"),
        pytest.param(DOCTOR + "," + DOCTOR, id="two"),
        pytest.param("a" * 100_000, id="100 kB"),
        pytest.param("\xff\x80", id="raw bytes"),
    ],
)
def test_another_spelling_of_a_uuid_gets_a_400(client_without_database: FlaskClient, value: str) -> None:
    assert error_detail(client_without_database, f"user_id={value}") == NOT_A_UUID


@given(st.binary(max_size=60))
@example(DOCTOR.encode() + b"\n")
def test_any_bytes_are_a_uuid_or_get_a_400(client_without_database: FlaskClient, value: bytes) -> None:
    if not canonical_uuid(value.decode("latin-1")):
        assert error_detail(client_without_database, f"user_id={quote(value)}") == NOT_A_UUID


@given(st.from_regex(query_fields._UUID, fullmatch=True))
def test_an_accepted_value_has_the_form_that_uuid_writes(value: str) -> None:
    assert str(uuid.UUID(value)) == canonical_uuid(value)


@given(st.uuids(), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_uuid_is_accepted(client: FlaskClient, user_id: uuid.UUID, upper: bool) -> None:
    value = str(user_id).upper() if upper else str(user_id)
    assert client.get(URL, query_string={"user_id": value}).data == b'{"cases":[]}'


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_error_does_not_repeat_the_value(client_without_database: FlaskClient, value: str) -> None:
    if not canonical_uuid(value):
        query = f"user_id={quote(value)}"
        assert error_detail(client_without_database, query) == NOT_A_UUID
