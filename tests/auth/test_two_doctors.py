"""Two doctors, each asking for the other's cases through every door there is: not one comes out."""

import itertools
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from medmitra_cases.auth.tokens import mint_token
from medmitra_cases.settings.settings import Settings
from tests.support.factories import CasesDatabase, case, execute, settings
from tests.support.processes import Running, serve

URL = "/cases/all_cases"
# Not the published one: an error names that as an example.
DOCTOR = "1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f1"
OTHER = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
SECRET = "test-secret-of-thirty-two-bytes-or-more"


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
def configured() -> Settings:
    return settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)


# Each a query; {mine} is the doctor whose token is sent, {theirs} the other.
QUERIES = [
    "user_id={mine}",
    "user_id={theirs}",
    "user_id={THEIRS}",
    "user_id={mine}&user_id={theirs}",
    "user_id={theirs}&user_id={mine}",
    "user_id={mine}&USER_ID={theirs}",
    "user_id={mine}&user_id[]={theirs}",
    "user_id[]={theirs}&user_id={mine}",
    "user_id={mine},{theirs}",
    "user_id={mine};user_id={theirs}",
    "user_id={mine}%26user_id={theirs}",
    "user_id={mine}%00{theirs}",
    "user_id={mine}'%20OR%20user_id='{theirs}",
    "user_id={mine}&doctor_id={theirs}&subject={theirs}&sub={theirs}",
    "%75ser_id={theirs}",
    "user_id={mine}#&user_id={theirs}",
    "user_id={mine}&limit=9999",
    "",
]
HEADERS: list[dict[str, str]] = [
    {},
    {"Range": "bytes=0-99999"},
    {"Range": "bytes=10-"},
    {"If-None-Match": "*"},
    {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"X-User-Id": "{theirs}", "X-Forwarded-User": "{theirs}", "Cookie": "user_id={theirs}"},
    {"X-HTTP-Method-Override": "POST", "X-Original-URL": "/cases/all_cases?user_id={theirs}"},
]


def written(pattern: str, mine: str, theirs: str) -> str:
    return pattern.replace("{mine}", mine).replace("{theirs}", theirs).replace("{THEIRS}", theirs.upper())


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("query", QUERIES)
def test_no_door_leads_to_another_doctors_cases(
    server: Running, configured: Settings, query: str, method: str
) -> None:
    for (mine, theirs), headers in itertools.product([(DOCTOR, OTHER), (OTHER, DOCTOR)], HEADERS):
        sent = {name: written(value, mine, theirs) for name, value in headers.items()}
        token = mint_token(configured, mine, minutes=1)
        target = f"{URL}?{written(quote(query, safe='{}%&=[],;#'), mine, theirs)}"
        response, body = server.get(target, method, Authorization=f"Bearer {token}", **sent)
        assert theirs.encode() not in body
        assert b"Somebody Else" not in body
        if response.status == 200 and method == "GET":
            assert [found["user_id"] for found in json.loads(body)["cases"]] == [mine] * 3
        else:
            assert b"Patient" not in body


@pytest.mark.parametrize("more", ["", "&status=pending", "&limit=2", "&sort_by=patient_name&limit=9"])
def test_the_other_doctors_tag_opens_nothing(server: Running, configured: Settings, more: str) -> None:
    tokens = {
        doctor: {"Authorization": f"Bearer {mint_token(configured, doctor, minutes=1)}"}
        for doctor in (DOCTOR, OTHER)
    }
    answers = {
        doctor: server.get(f"{URL}?user_id={doctor}{more}", **token) for doctor, token in tokens.items()
    }
    for mine, theirs in [(DOCTOR, OTHER), (OTHER, DOCTOR)]:
        known = {"If-None-Match": answers[theirs][0].headers["ETag"], **tokens[mine]}
        response, body = server.get(f"{URL}?user_id={mine}{more}", **known)
        assert (response.status, body) == (200, answers[mine][1])
        assert {found["user_id"] for found in json.loads(body)["cases"]} == {mine}
        # Whether it is the right one remains unsaid.
        for tag in (known["If-None-Match"], '"x"', "*"):
            refused, body = server.get(
                f"{URL}?user_id={theirs}{more}", **{"If-None-Match": tag, **tokens[mine]}
            )
            assert refused.status == 403
            assert "ETag" not in refused.headers
            assert "Patient" not in body.decode()


def test_a_case_that_moves_takes_no_tag_along(
    server: Running, configured: Settings, database: CasesDatabase
) -> None:
    """Who gets another's case, and loses it again, is told so both times; and so is the other."""
    targets = {
        doctor: (
            f"{URL}?user_id={doctor}",
            {"Authorization": f"Bearer {mint_token(configured, doctor, minutes=1)}"},
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
        ("user_id={mine}", 200),
        ("user_id={theirs}", 403),
        ("user_id={THEIRS}", 403),
        ("user_id={mine}&user_id={theirs}", 400),
        ("user_id={mine}&user_id={mine}", 400),
        ("user_id={mine}&user_id[]={theirs}", 200),
        ("", 400),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_each_door_says(
    server: Running, configured: Settings, method: str, query: str, status: int
) -> None:
    token = mint_token(configured, DOCTOR, minutes=1)
    target = f"{URL}?{written(query, DOCTOR, OTHER)}"
    assert server.get(target, method, Authorization=f"Bearer {token}")[0].status == status
    assert server.get(target, method)[0].status == 401
