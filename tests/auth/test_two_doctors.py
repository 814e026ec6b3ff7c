"""Two doctors, each of whom requests the other's cases in every way: no response contains one."""

import itertools
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from medmitra_cases.auth.tokens import mint_token
from medmitra_cases.settings.settings import Settings
from tests.support.factories import CasesDatabase, case, execute, settings
from tests.support.processes import Running, serve
from tests.support.tokens import SECRET

URL = "/cases/all_cases"
# This is not the published id, because an error contains that one as an example.
DOCTOR = "1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f1"
OTHER = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    with serve(
        layout_database.service_dsn,
        MEDMITRA_JWT_SECRET=SECRET,
    ) as server:
        yield server


@pytest.fixture(autouse=True)
def _cases(database: CasesDatabase) -> None:
    for doctor in (DOCTOR, OTHER):
        database.add(*(case(user_id=doctor, patient_name=f"Patient of {doctor}") for _ in range(3)))


@pytest.fixture(scope="module")
def token_settings() -> Settings:
    return settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)


# Query strings. {own} is the doctor of the token that is sent, {other} is the other doctor.
QUERIES = [
    "user_id={own}",
    "user_id={other}",
    "user_id={OTHER}",
    "user_id={own}&user_id={other}",
    "user_id={other}&user_id={own}",
    "user_id={own}&USER_ID={other}",
    "user_id={own}&user_id[]={other}",
    "user_id[]={other}&user_id={own}",
    "user_id={own},{other}",
    "user_id={own};user_id={other}",
    "user_id={own}%26user_id={other}",
    "user_id={own}%00{other}",
    "user_id={own}'%20OR%20user_id='{other}",
    "user_id={own}&doctor_id={other}&subject={other}&sub={other}",
    "%75ser_id={other}",
    "user_id={own}#&user_id={other}",
    "user_id={own}&limit=9999",
    "",
]
HEADERS: list[dict[str, str]] = [
    {},
    {"Range": "bytes=0-99999"},
    {"Range": "bytes=10-"},
    {"If-None-Match": "*"},
    {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"X-User-Id": "{other}", "X-Forwarded-User": "{other}", "Cookie": "user_id={other}"},
    {"X-HTTP-Method-Override": "POST", "X-Original-URL": "/cases/all_cases?user_id={other}"},
]


def fill_in(pattern: str, own: str, other: str) -> str:
    return pattern.replace("{own}", own).replace("{other}", other).replace("{OTHER}", other.upper())


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("query", QUERIES)
def test_no_request_returns_another_doctors_cases(
    server: Running, token_settings: Settings, query: str, method: str
) -> None:
    for (own, other), headers in itertools.product([(DOCTOR, OTHER), (OTHER, DOCTOR)], HEADERS):
        sent = {name: fill_in(value, own, other) for name, value in headers.items()}
        token = mint_token(token_settings, own, minutes=1)
        target = f"{URL}?{fill_in(quote(query, safe='{}%&=[],;#'), own, other)}"
        response, body = server.get(target, method, Authorization=f"Bearer {token}", **sent)
        assert other.encode() not in body
        assert b"Somebody Else" not in body
        if response.status == 200 and method == "GET":
            assert [found["user_id"] for found in json.loads(body)["cases"]] == [own] * 3
        else:
            assert b"Patient" not in body


@pytest.mark.parametrize("parameters", ["", "&status=pending", "&limit=2", "&sort_by=patient_name&limit=9"])
def test_the_other_doctors_etag_gives_no_access(
    server: Running, token_settings: Settings, parameters: str
) -> None:
    tokens = {
        doctor: {"Authorization": f"Bearer {mint_token(token_settings, doctor, minutes=1)}"}
        for doctor in (DOCTOR, OTHER)
    }
    responses = {
        doctor: server.get(f"{URL}?user_id={doctor}{parameters}", **token) for doctor, token in tokens.items()
    }
    for own, other in [(DOCTOR, OTHER), (OTHER, DOCTOR)]:
        headers = {"If-None-Match": responses[other][0].headers["ETag"], **tokens[own]}
        response, body = server.get(f"{URL}?user_id={own}{parameters}", **headers)
        assert (response.status, body) == (200, responses[own][1])
        assert {found["user_id"] for found in json.loads(body)["cases"]} == {own}
        # The response does not reveal whether the ETag is the right one.
        for tag in (headers["If-None-Match"], '"x"', "*"):
            refused, body = server.get(
                f"{URL}?user_id={other}{parameters}", **{"If-None-Match": tag, **tokens[own]}
            )
            assert refused.status == 403
            assert "ETag" not in refused.headers
            assert "Patient" not in body.decode()


def test_a_case_that_moves_changes_the_etags_of_both_doctors(
    server: Running, token_settings: Settings, database: CasesDatabase
) -> None:
    """Both doctors get a 200 after the case moves from one to the other, and after it moves back."""
    targets = {
        doctor: (
            f"{URL}?user_id={doctor}",
            {"Authorization": f"Bearer {mint_token(token_settings, doctor, minutes=1)}"},
        )
        for doctor in (DOCTOR, OTHER)
    }
    owner = database.layout.owner_column
    for giver, taker in [(DOCTOR, OTHER), (OTHER, DOCTOR)]:
        tags = {
            doctor: server.get(url, **token)[0].headers["ETag"] for doctor, (url, token) in targets.items()
        }
        execute(
            database.owner,
            f"UPDATE {database.layout.relation} SET {owner} = %s WHERE id ="
            f" (SELECT max(id) FROM {database.layout.relation} WHERE {owner} = %s)",
            [taker, giver],
        )
        for doctor, (url, token) in targets.items():
            response, body = server.get(url, **{"If-None-Match": tags[doctor], **token})
            assert response.status == 200
            assert {found["user_id"] for found in json.loads(body)["cases"]} == {doctor}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("user_id={own}", 200),
        ("user_id={other}", 403),
        ("user_id={OTHER}", 403),
        ("user_id={own}&user_id={other}", 400),
        ("user_id={own}&user_id={own}", 400),
        ("user_id={own}&user_id[]={other}", 200),
        ("", 400),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_each_query_gets_its_status(
    server: Running, token_settings: Settings, method: str, query: str, status: int
) -> None:
    token = mint_token(token_settings, DOCTOR, minutes=1)
    target = f"{URL}?{fill_in(query, DOCTOR, OTHER)}"
    assert server.get(target, method, Authorization=f"Bearer {token}")[0].status == status
    assert server.get(target, method)[0].status == 401
