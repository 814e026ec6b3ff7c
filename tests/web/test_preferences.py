"""``Prefer: handling=strict``: a misspelt parameter gets a 400 instead of a list that ignores it."""

import pytest
from flask.testing import FlaskClient

from tests.support import factories
from tests.support.factories import DOCTOR, CasesDatabase, case
from tests.support.tokens import SECRET

URL = f"/cases/all_cases?user_id={DOCTOR}"
STRICT = {"Prefer": "handling=strict"}


def is_strict(client: FlaskClient, prefer: str) -> bool:
    status = client.get(f"{URL}&limt=1", headers={"Prefer": prefer}).status_code
    assert status in (200, 400)
    return status == 400


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("limt", "limit"),
        ("Limit", "limit"),
        ("state", "status"),
        ("startdate", "start_date"),
        ("updated_after", "updated_since"),
        ("userid", "user_id"),
        ("status[]", "status"),
        ("limit%0A", "limit"),
    ],
)
def test_the_400_names_the_unknown_parameter_and_the_most_similar_one(
    client_without_database: FlaskClient, name: str, nearest: str
) -> None:
    response = client_without_database.get(f"{URL}&sort_by=status&{name}=1", headers=STRICT)
    assert response.status_code == 400
    sent = name.replace("%0A", "?")
    expected = f"{sent} is not a parameter; the most similar is {nearest}"
    assert response.get_json() == {"detail": expected}


def test_a_long_name_is_repeated_only_in_part(client_without_database: FlaskClient) -> None:
    response = client_without_database.get(f"{URL}&{'limit' * 2_000}=1&other=2", headers=STRICT)
    assert response.get_json()["detail"].startswith(f"{'limit' * 10} is not a parameter; ")


def test_known_parameters_get_the_same_list(client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case(), case())
    for query in ("", "&status=&minAge=&limit=1"):
        plain = client.get(f"{URL}{query}")
        strict = client.get(f"{URL}{query}", headers=STRICT)
        assert (strict.status_code, strict.data) == (200, plain.data)
        assert strict.headers["ETag"] == plain.headers["ETag"]
        assert "Preference-Applied" not in plain.headers
        tag = {"If-None-Match": plain.headers["ETag"]}
        unchanged = client.get(f"{URL}{query}", headers={**STRICT, **tag})
        assert unchanged.status_code == 304
        for response in (strict, unchanged):
            assert response.headers.getlist("Preference-Applied") == ["handling=strict"]


@pytest.mark.parametrize(
    "prefer",
    [
        "handling=strict",
        'Handling="strict"',
        "handling = strict",
        "respond-async, handling=strict",
        "handling=strict; foo=bar, wait=10",
        'foo="a, b";x="y", handling=strict, handling=lenient',
    ],
)
def test_the_preference_is_found_among_others(client: FlaskClient, prefer: str) -> None:
    assert is_strict(client, prefer)


@pytest.mark.parametrize(
    "prefer",
    [
        "",
        "handling",
        "handling=",
        "handling=lenient",
        "handling=lenient, handling=strict",
        "handling=stricter",
        'foo="a, handling=strict"',
        "foo; handling=strict",
        "strict",
        ",;=",
        "x" * 500 + ", handling=strict",
    ],
)
def test_other_preferences_are_ignored(client: FlaskClient, prefer: str) -> None:
    assert not is_strict(client, prefer)


def test_pages_of_other_origins_can_be_strict(database: CasesDatabase) -> None:
    origin = {"Origin": "https://app.example"}
    with factories.client_on(database.service_dsn, MEDMITRA_CORS_ORIGINS=origin["Origin"]) as client:
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "prefer"}
        preflight = client.options(URL, headers={**origin, **asked})
        assert preflight.headers["Access-Control-Allow-Headers"] == "prefer"
        response = client.get(URL, headers={**origin, **STRICT})
        assert "Preference-Applied" in response.headers["Access-Control-Expose-Headers"].split(", ")


def test_a_client_without_a_token_learns_nothing_about_parameters(database: CasesDatabase) -> None:
    with factories.client_on(database.service_dsn, MEDMITRA_JWT_SECRET=SECRET) as client:
        assert client.get(f"{URL}&limt=1", headers=STRICT).status_code == 401
