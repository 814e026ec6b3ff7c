"""Bearer tokens: only a doctor with a valid token can read cases, and only their own."""

import math
import os
import re
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from medmitra_cases.auth.tokens import mint_token
from tests.support import factories
from tests.support.factories import DOCTOR, CasesDatabase, case, in_json
from tests.support.tokens import (
    ABSENT,
    ASKED,
    DAY,
    EXPIRED,
    ISSUER,
    MALFORMED,
    NO_MATCH,
    NOT_A_UUID,
    NOT_YET,
    OTHER_ALGORITHM,
    OTHER_AUDIENCE,
    OTHER_ISSUER,
    RSA_KEY,
    SECRET,
    SECRET_BYTES,
    URL,
    ask,
    assert_refused,
    bearer,
    claims,
    detail,
    header,
    issued,
    issued_by_key,
    segment,
    signed,
)

NO_DATABASE = "postgresql://127.0.0.1:1/nowhere"
OTHER = DOCTOR[:-1] + "7"
NO_TOKEN = "a token is needed (Authorization: Bearer <token>)"
OTHER_DOCTOR = "user_id is not the doctor that the token was issued to"
NOW = int(time.time())


@contextmanager
def client_of(url: str, **variables: str) -> Iterator[FlaskClient]:
    """A client of a service that requires tokens."""
    with factories.client_on(url, **{"MEDMITRA_JWT_SECRET": SECRET, **variables}) as client:
        yield client


@pytest.fixture
def app(database: CasesDatabase) -> Iterator[Flask]:
    """The service of conftest's ``client``, with tokens required."""
    with client_of(database.service_dsn) as client:
        yield client.application


@contextmanager
def client_of_no_database(**variables: str) -> Iterator[FlaskClient]:
    """A client of a service whose database does not exist. A request that needs the database gets a 500."""
    with client_of(NO_DATABASE, MEDMITRA_DATABASE_WAIT_SECONDS="0", **variables) as client:
        yield client


@pytest.fixture(scope="module")
def client_without_database() -> Iterator[FlaskClient]:
    """A client whose responses, except a 500, are made without the database."""
    with client_of_no_database(MEDMITRA_JWT_ISSUER=ISSUER) as client:
        yield client


def assert_accepted(response: TestResponse) -> None:
    """Assert that the token was accepted: the request reached the database, which does not exist."""
    assert response.status_code == 500
    assert detail(response).startswith("Internal server error: database unavailable ")


def seconds_from_now(seconds: int) -> int:
    """Return the time in so many seconds, rounded up to a whole second."""
    return math.ceil(time.time()) + seconds


def token_of_length(length: int) -> str:
    """Make a valid token of exactly this many bytes."""
    smallest = (length - len(issued(more=""))) * 3 // 4 - 3
    tokens = (issued(more="x" * size) for size in range(smallest, smallest + 8))
    return next(token for token in tokens if len(token) == length)


VALID = {
    "as issued": issued(),
    "sub in upper case": issued(sub=DOCTOR.upper()),
    "aud a list": issued(aud=["other", "authenticated"]),
    "no iat": issued(iat=ABSENT),
    "nbf in the past": issued(nbf=NOW - DAY),
    "exp with a fraction": issued(exp=NOW + DAY + 0.5),
    "kid, which a secret does not need": signed(header(kid="some"), claims()),
    "no typ": signed(header(typ=ABSENT), claims()),
    "8,192 bytes": token_of_length(8_192),
}


@pytest.mark.parametrize("token", VALID.values(), ids=VALID)
def test_a_doctor_reads_their_own_cases(client: FlaskClient, database: CasesDatabase, token: str) -> None:
    added = [case(), case()]
    database.add(*added)
    response = ask(client, token)
    assert response.status_code == 200
    assert response.get_json() == {"cases": [in_json(columns) for columns in added]}
    assert "WWW-Authenticate" not in response.headers


def test_the_letter_case_of_user_id_does_not_matter(client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    response = ask(client, issued(), f"{URL}?user_id={DOCTOR.upper()}")
    assert (response.status_code, len(response.get_json()["cases"])) == (200, 1)


@pytest.mark.parametrize(
    ("before", "after"), [("bearer ", ""), ("BEARER ", ""), ("Bearer    ", ""), (" Bearer ", " \t")]
)
def test_the_authorization_header_may_be_written_in_other_ways(
    client: FlaskClient, before: str, after: str
) -> None:
    assert client.get(ASKED, headers={"Authorization": before + issued() + after}).status_code == 200


@pytest.mark.parametrize(("claim", "seconds"), [("exp", -29), ("nbf", 29), ("iat", 29)])
def test_clocks_may_differ_by_up_to_30_seconds(client: FlaskClient, claim: str, seconds: int) -> None:
    assert ask(client, issued(**{claim: seconds_from_now(seconds)})).status_code == 200


@pytest.mark.parametrize(
    ("claim", "seconds", "reason"), [("exp", -31, EXPIRED), ("nbf", 31, NOT_YET), ("iat", 31, NOT_YET)]
)
def test_clocks_may_not_differ_by_more_than_30_seconds(
    client_without_database: FlaskClient, claim: str, seconds: int, reason: str
) -> None:
    assert_refused(ask(client_without_database, issued(**{claim: seconds_from_now(seconds)})), reason)


def test_a_valid_token_reaches_the_database(client_without_database: FlaskClient) -> None:
    assert_accepted(ask(client_without_database, issued()))


WITHOUT_TOKEN: dict[str, dict[str, Any]] = {
    "no header": {},
    "empty header": {"headers": {"Authorization": ""}},
    "Basic": {"headers": {"Authorization": f"Basic {issued()}"}},
    "Bearer alone": {"headers": {"Authorization": "Bearer"}},
    "Bearer and blanks": {"headers": {"Authorization": "Bearer   "}},
    "Bearer without a blank": {"headers": {"Authorization": f"Bearer{issued()}"}},
    "no scheme": {"headers": {"Authorization": issued()}},
    "X-Authorization": {"headers": {"X-Authorization": f"Bearer {issued()}"}},
    "Proxy-Authorization": {"headers": {"Proxy-Authorization": f"Bearer {issued()}"}},
    "cookie": {"headers": {"Cookie": f"access_token={issued()}; Authorization=Bearer {issued()}"}},
    "query": {"path": f"{ASKED}&access_token={issued()}"},
    "body": {"data": {"access_token": issued()}},
}


@pytest.mark.parametrize("request_", WITHOUT_TOKEN.values(), ids=WITHOUT_TOKEN)
def test_a_request_without_a_bearer_token_gets_a_401(
    client_without_database: FlaskClient, request_: dict[str, Any]
) -> None:
    response = client_without_database.get(**{"path": ASKED, **request_})
    assert response.status_code == 401
    assert response.headers.getlist("WWW-Authenticate") == ["Bearer"]
    assert response.get_json() == {"detail": NO_TOKEN}


FIRST, SECOND, SIGNATURE = issued().split(".")
# Base64 of 32 bytes does not use two bits of the last letter. Lax decoders accept a text with them set.
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
LAST_BITS_SET = SIGNATURE[:-1] + ALPHABET[ALPHABET.index(SIGNATURE[-1]) + 1]
JWE = ".".join([segment({"alg": "dir", "enc": "A256GCM"}), "", *(segment(bytes(16)) for _ in range(3))])

REFUSED: dict[str, dict[str, str]] = {
    OTHER_ALGORITHM: {
        "alg none": f"{segment(header(alg='none'))}.{SECOND}.",
        "alg none, but signed": signed(header(alg="none"), claims()),
        "alg nOnE": f"{segment(header(alg='nOnE'))}.{SECOND}.",
        "alg HS384": signed(header(alg="HS384"), claims(), algorithm="HS384"),
        "alg HS512": signed(header(alg="HS512"), claims(), algorithm="HS512"),
        "alg HS384, signed HS256": signed(header(alg="HS384"), claims()),
        "alg RS256": issued_by_key(RSA_KEY, "some"),
        "alg in lower case": signed(header(alg="hs256"), claims()),
        "alg empty": signed(header(alg=""), claims()),
        "alg null": signed(header(alg=None), claims()),
        "alg a list": signed(header(alg=["HS256"]), claims()),
        "no alg": signed(header(alg=ABSENT), claims()),
    },
    NO_MATCH: {
        "other secret": signed(header(), claims(), SECRET_BYTES + b"!"),
        "empty secret": signed(header(), claims(), b""),
        "signed HS384": signed(header(), claims(), algorithm="HS384"),
        "no signature": f"{FIRST}.{SECOND}.",
        "signature cut": f"{FIRST}.{SECOND}.{SIGNATURE[:40]}",
        "signature of another token": f"{FIRST}.{SECOND}.{issued(sub=OTHER).split('.')[2]}",
        "other payload": f"{FIRST}.{segment(claims(sub=OTHER))}.{SIGNATURE}",
        "other header": f"{segment(header(typ='at+jwt'))}.{SECOND}.{SIGNATURE}",
    },
    MALFORMED: {
        "a word": "x",
        "two segments": f"{FIRST}.{SECOND}",
        "four segments": f"{FIRST}.{SECOND}.{SIGNATURE}.{SIGNATURE}",
        "five segments (JWE)": JWE,
        "empty segments": "..",
        "empty header": f".{SECOND}.{SIGNATURE}",
        "empty payload": signed(header(), b""),
        "not base64": f"{FIRST}.{SECOND}.!{SIGNATURE[1:]}",
        "base64 with + and /": f"{FIRST}.{SECOND}.+/{SIGNATURE[2:]}",
        "one letter too few": f"{FIRST}.{SECOND}.{SIGNATURE[:41]}",
        "unused bits set": f"{FIRST}.{SECOND}.{LAST_BITS_SET}",
        "padding in the middle": f"{FIRST}=.{SECOND}.{SIGNATURE}",
        "padding at the end": f"{FIRST}.{SECOND}.{SIGNATURE}==",
        "blank inside": f"{FIRST}. {SECOND}.{SIGNATURE}",
        "tab inside": f"{FIRST}.{SECOND}.\t{SIGNATURE}",
        "not ASCII": f"{FIRST}.{SECOND}.{SIGNATURE}é",
        "two values": f"{issued()}, Bearer {issued()}",
        "Bearer twice": f"Bearer {issued()}",
        "in quotes": f'"{issued()}"',
        "header not JSON": signed(b"alg=HS256", claims()),
        "header not UTF-8": signed(b'{"alg":"HS256","typ":"\xff"}', claims()),
        "header a list": signed([header()], claims()),
        "header nested deep": signed(b"[" * 2_500 + b"]" * 2_500, claims()),
        "payload not JSON": signed(header(), b"sub=" + DOCTOR.encode()),
        "payload not UTF-8": signed(header(), b'{"sub":"\xff"}'),
        "payload a list": signed(header(), [claims()]),
        "payload a text": signed(header(), "sub"),
        "payload nested deep": signed(header(), b"[" * 2_500 + b"]" * 2_500),
        "crit unknown": signed(header(crit=["bound"], bound=1), claims()),
        "crit empty": signed(header(crit=[]), claims()),
        "b64 false": signed(header(b64=False, crit=["b64"]), claims()),
        "b64 false, payload left out": signed(header(b64=False, crit=["b64"]), b""),
        "kid a number": signed(header(kid=1), claims()),
        "exp a word": issued(exp="tomorrow"),
        "exp a list": issued(exp=[NOW + DAY]),
        "exp infinite": issued(exp=math.inf),
        "nbf a word": issued(nbf="yesterday"),
        "iat a word": issued(iat="yesterday"),
        "jti a number": issued(jti=1),
    },
    EXPIRED: {
        "exp in the past": issued(exp=NOW - DAY),
        "exp 0": issued(exp=0),
        "exp negative": issued(exp=-(10**30)),
        "exp true": issued(exp=True),
    },
    NOT_YET: {
        "nbf in the future": issued(nbf=NOW + DAY, exp=NOW + 2 * DAY),
        "iat in the future": issued(iat=NOW + DAY, exp=NOW + 2 * DAY),
    },
    OTHER_AUDIENCE: {
        "aud other": issued(aud="anon"),
        "aud in upper case": issued(aud="AUTHENTICATED"),
        "aud longer": issued(aud="authenticated "),
        "aud a list of others": issued(aud=["anon", "service"]),
        "aud a list of numbers": issued(aud=[1, 2]),
        "aud a list in a list": issued(aud=[["authenticated"]]),
        "aud an object": issued(aud={"authenticated": True}),
    },
    OTHER_ISSUER: {
        "iss other": issued(iss="https://issuer.example"),
        "iss longer": issued(iss=ISSUER + "/"),
        "iss a number": issued(iss=1),
        "iss a list": issued(iss=[ISSUER]),
    },
    NOT_A_UUID: {
        "sub a word": issued(sub="doctor"),
        "sub empty": issued(sub=""),
        "sub a number": issued(sub=1),
        "sub a list": issued(sub=[DOCTOR]),
        "sub without dashes": issued(sub=DOCTOR.replace("-", "")),
        "sub in braces": issued(sub="{" + DOCTOR + "}"),
        "sub a URN": issued(sub=f"urn:uuid:{DOCTOR}"),
        "sub with a newline": issued(sub=DOCTOR + "\n"),
        "sub with a blank": issued(sub=" " + DOCTOR),
    },
    "the token lacks a claim (exp)": {"no exp": issued(exp=ABSENT), "exp null": issued(exp=None)},
    "the token lacks a claim (sub)": {"no sub": issued(sub=ABSENT), "sub null": issued(sub=None)},
    "the token lacks a claim (iss)": {"no iss": issued(iss=ABSENT), "iss null": issued(iss=None)},
    "the token lacks a claim (aud)": {
        "no aud": issued(aud=ABSENT),
        "aud null": issued(aud=None),
        "aud empty": issued(aud=""),
        "aud an empty list": issued(aud=[]),
    },
    "the token is longer than 8,192 bytes": {"8,193 bytes": token_of_length(8_193), "100 kB": "x" * 100_000},
}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param(token, reason, id=name)
        for reason, tokens in REFUSED.items()
        for name, token in tokens.items()
    ],
)
def test_an_invalid_token_gets_a_401(client_without_database: FlaskClient, token: str, reason: str) -> None:
    response = ask(client_without_database, token)
    assert_refused(response, reason)
    parts = re.split(r"[.,\s]+", token)
    assert not [part for part in parts if len(part) > 8 and part in response.text]


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=60))
def test_any_bytes_get_a_401(client_without_database: FlaskClient, value: str) -> None:
    response = client_without_database.get(ASKED, headers={"Authorization": value})
    assert response.status_code == 401
    assert client_without_database.get(ASKED, headers=bearer(f"{FIRST}.{value}")).status_code == 401


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=9), values, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(["alg", "crit", "b64", "kid", "typ"]), JSON)
def test_any_token_header_is_accepted_or_gets_a_401(
    client_without_database: FlaskClient, name: str, value: Any
) -> None:
    response = ask(client_without_database, signed(header(**{name: value}), claims()))
    if response.status_code != 401:
        assert_accepted(response)


@given(st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "jti"]), JSON)
def test_any_claim_is_accepted_or_gets_a_401(
    client_without_database: FlaskClient, name: str, value: Any
) -> None:
    response = ask(client_without_database, issued(**{name: value}))
    if response.status_code != 401:
        assert_accepted(response)


@pytest.mark.parametrize("user_id", [OTHER, OTHER.upper(), "00000000-0000-0000-0000-000000000000"])
def test_a_request_for_another_doctors_cases_gets_a_403(
    client_without_database: FlaskClient, user_id: str
) -> None:
    response = ask(client_without_database, issued(), f"{URL}?user_id={user_id}")
    assert (response.status_code, detail(response)) == (403, OTHER_DOCTOR)
    assert "WWW-Authenticate" not in response.headers


def test_the_token_decides_and_not_the_user_id(client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    assert ask(client, issued(sub=OTHER)).status_code == 403
    assert ask(client, issued(sub=OTHER), f"{URL}?user_id={OTHER}").status_code == 200


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "user_id is missing"),
        ("user_id=x", f"user_id must be a UUID written like {DOCTOR}"),
        (f"user_id={DOCTOR}&user_id={OTHER}", "user_id must be given once, not 2 times"),
        (f"user_id={OTHER}&user_id={DOCTOR}", "user_id must be given once, not 2 times"),
    ],
)
def test_an_invalid_user_id_gets_a_400_only_with_a_valid_token(
    client_without_database: FlaskClient, query: str, message: str
) -> None:
    response = ask(client_without_database, issued(), f"{URL}?{query}")
    assert (response.status_code, detail(response)) == (400, message)
    # Without a valid token, the error says nothing about the rest of the request.
    assert_refused(ask(client_without_database, "x", f"{URL}?{query}"), MALFORMED)
    response = client_without_database.get(f"{URL}?{query}")
    assert (response.status_code, detail(response)) == (401, NO_TOKEN)


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, f"user_id={DOCTOR}", 401),
        (bearer("x"), f"user_id={DOCTOR}", 401),
        (bearer(issued()), f"user_id={OTHER}", 403),
        (bearer(issued()), "", 400),
        (bearer(issued()), f"user_id={DOCTOR}", 200),
    ],
)
def test_head_gets_the_status_of_get(
    client: FlaskClient, headers: dict[str, str], query: str, status: int
) -> None:
    head, get = (client.open(f"{URL}?{query}", method=method, headers=headers) for method in ("HEAD", "GET"))
    assert (head.status_code, head.data) == (status, b"")
    assert get.status_code == status
    assert head.headers.get("WWW-Authenticate") == get.headers.get("WWW-Authenticate")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_another_method_gets_a_405_without_a_token(client_without_database: FlaskClient, method: str) -> None:
    response = client_without_database.open(ASKED, method=method)
    assert response.status_code == 405
    assert "WWW-Authenticate" not in response.headers


@pytest.mark.parametrize(
    "other_claims",
    [
        {"role": "service_role"},
        {"role": "postgres", "is_super_admin": True, "scope": "*", "aal": "aal2"},
        {"user_id": OTHER, "doctor_id": OTHER, "client_id": OTHER, "act": {"sub": OTHER}},
        {"app_metadata": {"role": "admin", "user_id": OTHER}, "user_metadata": "x"},
    ],
)
def test_other_claims_are_ignored(
    client: FlaskClient, database: CasesDatabase, other_claims: dict[str, Any]
) -> None:
    database.add(case())
    assert len(ask(client, issued(**other_claims)).get_json()["cases"]) == 1
    assert ask(client, issued(**other_claims), f"{URL}?user_id={OTHER}").status_code == 403
    assert_refused(ask(client, issued(sub=ABSENT, **other_claims)), "the token lacks a claim (sub)")


def test_the_audience_can_be_set() -> None:
    with client_of_no_database(MEDMITRA_JWT_AUDIENCE="clinic") as client:
        assert_accepted(ask(client, issued(aud="clinic")))
        assert_refused(ask(client, issued()), OTHER_AUDIENCE)


@pytest.mark.parametrize("iss", [ABSENT, None, "", "https://other.example", 1])
def test_the_issuer_is_ignored_unless_it_is_set(iss: object) -> None:
    with client_of_no_database() as client:
        assert_accepted(ask(client, issued(iss=iss)))


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(b"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", id="base64"),
        pytest.param("é".encode() * 16, id="not ASCII"),
        pytest.param(b"\xff" * 32, id="not UTF-8"),
    ],
)
def test_the_secret_is_the_bytes_of_its_environment_variable(secret: bytes) -> None:
    with client_of_no_database(MEDMITRA_JWT_SECRET=os.fsdecode(secret)) as client:
        assert_accepted(ask(client, signed(header(), claims(), secret)))
        assert_refused(ask(client, signed(header(), claims(), secret + secret)), NO_MATCH)


@pytest.mark.parametrize(
    "variables", [{}, {"MEDMITRA_JWT_AUDIENCE": "clinic", "MEDMITRA_JWT_ISSUER": ISSUER}]
)
def test_a_minted_token_is_accepted_until_it_expires(variables: dict[str, str]) -> None:
    token_settings = factories.settings(NO_DATABASE, MEDMITRA_JWT_SECRET=SECRET, **variables)
    with client_of_no_database(**variables) as client:
        assert_accepted(ask(client, mint_token(token_settings, DOCTOR, minutes=1)))
        assert_refused(ask(client, mint_token(token_settings, DOCTOR, minutes=-1)), EXPIRED)
