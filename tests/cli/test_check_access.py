"""The command check fetches the issuer's keys, and describes the link to the database."""

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.factories import CasesDatabase
from tests.support.key_server import Answer, KeyServer
from tests.support.processes import run
from tests.support.tokens import EC_KEY, RSA_KEY, SECRET, jwk

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

KEYS = "the signing keys of MEDMITRA_JWKS_URL"
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
P384_KEY = ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    with closing(KeyServer()) as server:
        yield server


def check(database: CasesDatabase, **variables: str) -> tuple[int, list[str]]:
    """Run the command; return its exit status and its lines."""
    ended = run("check", DATABASE_URL=database.service_dsn, **variables)
    assert ended.stderr == ""
    return ended.returncode, ended.stdout.splitlines()


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ([jwk(EC_KEY, "a")], f"✓ {KEYS}: 1 for ES256, 0 for RS256"),
        ([jwk(RSA_KEY, "a"), jwk(OTHER_RSA_KEY, "b")], f"✓ {KEYS}: 0 for ES256, 2 for RS256"),
        ([jwk(EC_KEY, "a"), jwk(RSA_KEY, "a")], f"✓ {KEYS}: 1 for ES256, 1 for RS256"),
        (
            [jwk(EC_KEY, "a"), jwk(P384_KEY, "b"), jwk(RSA_KEY, "c", use="enc")],
            f"✓ {KEYS}: 1 for ES256, 0 for RS256; 2 more cannot be used",
        ),
    ],
)
def test_check_counts_the_keys_of_each_kind(
    layout_database: CasesDatabase, key_server: KeyServer, keys: list[dict[str, str]], line: str
) -> None:
    key_server.publish(*keys)
    status, lines = check(layout_database, MEDMITRA_JWKS_URL=key_server.url)
    assert (status, lines[0]) == (0, line)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (Answer(200, b'{"keys": []}'), f"✗ {KEYS}: 0 for ES256, 0 for RS256"),
        (
            Answer(200, json.dumps({"keys": [jwk(P384_KEY, "a")]}).encode()),
            f"✗ {KEYS}: 0 for ES256, 0 for RS256; 1 more cannot be used",
        ),
        (Answer(404, b"not found"), "✗ no keys from MEDMITRA_JWKS_URL: HTTP Error 404: Not Found"),
        (Answer(200, b"<html>"), "✗ no keys from MEDMITRA_JWKS_URL: Expecting value"),
        (Answer(200, b"{}"), "✗ no keys from MEDMITRA_JWKS_URL: 'keys'"),
        (Answer(200, b'{"keys": 1}'), "✗ no keys from MEDMITRA_JWKS_URL: "),
    ],
)
def test_check_fails_without_keys_but_goes_on(
    layout_database: CasesDatabase, key_server: KeyServer, answer: Answer, line: str
) -> None:
    key_server.answer = answer
    status, lines = check(layout_database, MEDMITRA_JWKS_URL=key_server.url, MEDMITRA_JWT_SECRET=SECRET)
    assert status == 1
    assert lines[0].startswith(line)
    assert lines[1].startswith("  → ")
    assert "✓ medmitra.cases is a table" in lines
    assert lines[-1] == "Not ready to serve: 1 of 14 checks failed (✗)."


def test_check_names_a_key_server_that_does_not_exist(layout_database: CasesDatabase) -> None:
    status, lines = check(layout_database, MEDMITRA_JWKS_URL="http://127.0.0.1:1/keys")
    assert (status, lines[0][:36]) == (1, "✗ no keys from MEDMITRA_JWKS_URL: <u")
    assert "Connection refused" in lines[0]


def test_check_fetches_no_keys_without_a_url(layout_database: CasesDatabase) -> None:
    status, lines = check(layout_database, MEDMITRA_JWT_SECRET=SECRET)
    assert status == 0
    assert not [line for line in lines if "keys" in line]


def test_a_link_over_a_unix_socket_is_safe(layout_database: CasesDatabase) -> None:
    if "host=/" not in layout_database.service_dsn:
        pytest.skip("the tests' Postgres listens on TCP")
    _, lines = check(layout_database)
    assert lines[0] == "✓ the link to the database is a Unix socket, which does not leave this machine"
