"""Keys from their issuer's URL: which count, how long, and what happens while they cannot be had."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask.testing import FlaskClient
from jwt.algorithms import ECAlgorithm
from werkzeug.test import TestResponse

from medmitra_cases.auth import jwks
from tests.support import factories
from tests.support.factories import CasesDatabase, case, in_json
from tests.support.key_server import Answer, KeyServer
from tests.support.processes import TIMEOUT_SECONDS
from tests.support.tokens import (
    ABSENT,
    DAY,
    EC_KEY,
    EXPIRED,
    ISSUER,
    MALFORMED,
    NO_MATCH,
    OTHER_ALGORITHM,
    OTHER_AUDIENCE,
    OTHER_ISSUER,
    RSA_KEY,
    SECRET_BYTES,
    ask,
    assert_refused,
    claims,
    detail,
    header,
    issued_by_key,
    jwk,
    segment,
    signed,
)

# The table's layout has no say in any of this.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

UNKNOWN_KEY = "the token is signed with a key (kid) that its issuer does not have"
NEW_KEY = ec.generate_private_key(ec.SECP256R1())
GOOD_KEYS = (jwk(EC_KEY, "ec"), jwk(RSA_KEY, "rsa"))
GOOD = issued_by_key(EC_KEY, "ec")
ROTATED = issued_by_key(NEW_KEY, "new")
NEVER = 1_000_000


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    """The issuer's key server, where ``ec`` and ``rsa`` are published."""
    with closing(KeyServer()) as server:
        server.publish(*GOOD_KEYS)
        yield server


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets times of ``jwks``; those that a busy machine could reach are out of reach until then."""

    def set_seconds(**values: float) -> None:
        for name, value in values.items():
            monkeypatch.setattr(jwks, f"{name.upper()}_SECONDS", value)

    set_seconds(fetch=TIMEOUT_SECONDS, refetch=NEVER, refresh=NEVER, stale=NEVER)
    return set_seconds


@contextmanager
def client_of(database: CasesDatabase, url: str, **variables: str) -> Iterator[FlaskClient]:
    """A client of a service that fetches its keys there."""
    with factories.client_on(database.service_dsn, MEDMITRA_JWKS_URL=url, **variables) as client:
        try:
            yield client
        finally:
            for thread in threading.enumerate():
                if thread.name == "signing-keys":  # it would log in the next test
                    thread.join(TIMEOUT_SECONDS)


@pytest.fixture
def client(layout_database: CasesDatabase, key_server: KeyServer) -> Iterator[FlaskClient]:
    """A client of a service that gets its keys from ``key_server``; the cases are any test's before."""
    with client_of(layout_database, key_server.url) as client:
        yield client


def accepted(response: TestResponse) -> bool:
    return response.status_code == 200


def assert_accepted(response: TestResponse) -> None:
    assert response.status_code == 200, response.text


def assert_unavailable(response: TestResponse) -> None:
    assert response.status_code == 500
    form = r"Internal server error: signing keys unavailable \(request id [0-9a-f]{16}\)"
    assert re.fullmatch(form, detail(response))
    assert "WWW-Authenticate" not in response.headers


def ask_until(
    client: FlaskClient,
    token: str,
    answered: Callable[[TestResponse], bool],
    meanwhile: Callable[[TestResponse], None] = assert_accepted,
) -> TestResponse:
    """Ask until the answer is as expected: fetches are made in the background."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not answered(response := ask(client, token)):
        assert time.monotonic() < deadline
        meanwhile(response)
    return response


def ask_at_once(client: FlaskClient, tokens: list[str], threads: int) -> list[TestResponse]:
    """Ask with each token from several threads that begin together."""
    together = threading.Barrier(threads)

    def ask_with(some: list[str]) -> list[TestResponse]:
        own = client.application.test_client()
        together.wait(TIMEOUT_SECONDS)
        return [ask(own, token) for token in some]

    with ThreadPoolExecutor(threads) as pool:
        shares = [tokens[number::threads] for number in range(threads)]
        return [response for share in pool.map(ask_with, shares) for response in share]


@pytest.mark.parametrize(("key", "kid"), [(EC_KEY, "ec"), (RSA_KEY, "rsa")], ids=["ES256", "RS256"])
def test_both_kinds_of_key(client: FlaskClient, database: CasesDatabase, key: Any, kid: str) -> None:
    columns = case()
    database.add(columns)
    assert ask(client, issued_by_key(key, kid)).get_json() == {"cases": [in_json(columns)]}


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hs256(kid: str, secret: bytes) -> str:
    return signed(header(kid=kid), claims(), secret)


REFUSED: dict[str, dict[str, str]] = {
    OTHER_ALGORITHM: {
        "HS256 with the public key as secret": hs256("ec", pem(EC_KEY)),
        "HS256 with the public RSA key as secret": hs256("rsa", pem(RSA_KEY)),
        "HS256 with the JWK as secret": hs256("ec", json.dumps(GOOD_KEYS[0]).encode()),
        "HS256 with the curve's x as secret": hs256("ec", GOOD_KEYS[0]["x"].encode()),
        "ES384 by the right key": issued_by_key(EC_KEY, "ec", alg="ES384"),
        "RS512 by the right key": issued_by_key(RSA_KEY, "rsa", alg="RS512"),
        "PS256 by the right key": issued_by_key(RSA_KEY, "rsa", alg="PS256"),
        "alg none": f"{segment(header(alg='none', kid='ec'))}.{segment(claims())}.",
        "kid of a key of the other kind": issued_by_key(EC_KEY, "rsa"),
    },
    NO_MATCH: {
        "kid of another key": issued_by_key(NEW_KEY, "ec"),
        "signed RS512": signed(header(alg="RS256", kid="rsa"), claims(), RSA_KEY, "RS512"),
        "no signature": GOOD[: GOOD.rindex(".") + 1],
        "signature of zeros": GOOD[: GOOD.rindex(".") + 1] + segment(bytes(64)),
        "its own key in its header": signed(
            header(alg="ES256", kid="ec", jwk=jwk(NEW_KEY, "ec")), claims(), NEW_KEY, "ES256"
        ),
    },
    UNKNOWN_KEY: {
        "no kid": issued_by_key(EC_KEY, ABSENT),
        "kid empty": issued_by_key(EC_KEY, ""),
        "kid unknown": issued_by_key(EC_KEY, "other"),
        "kid in upper case": issued_by_key(EC_KEY, "EC"),
        "kid unknown, alg none": f"{segment(header(alg='none', kid='x'))}.{segment(claims())}.",
    },
    MALFORMED: {
        "kid null": issued_by_key(EC_KEY, None),
        "kid a number": issued_by_key(EC_KEY, 1),
        "kid a list": issued_by_key(EC_KEY, ["ec"]),
        "not a token": "x",
    },
    EXPIRED: {"exp in the past": issued_by_key(EC_KEY, "ec", exp=int(time.time()) - DAY)},
    OTHER_AUDIENCE: {"aud other": issued_by_key(EC_KEY, "ec", aud="anon")},
}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param(token, reason, id=name)
        for reason, tokens in REFUSED.items()
        for name, token in tokens.items()
    ],
)
def test_a_token_that_does_not_hold(client: FlaskClient, token: str, reason: str) -> None:
    assert_refused(ask(client, token), reason)
    assert_accepted(ask(client, GOOD))


def test_the_issuer_is_held_to_where_it_is_set(layout_database: CasesDatabase, key_server: KeyServer) -> None:
    with client_of(layout_database, key_server.url, MEDMITRA_JWT_ISSUER=ISSUER) as client:
        assert_accepted(ask(client, GOOD))
        assert_refused(ask(client, issued_by_key(EC_KEY, "ec", iss="https://other.example")), OTHER_ISSUER)


P384_KEY = ec.generate_private_key(ec.SECP384R1())
SHORT_KEY = rsa.generate_private_key(65537, 1_024)
PRIVATE_JWK = {**ECAlgorithm.to_jwk(NEW_KEY, as_dict=True), "kid": "odd"}
OCT_JWK = {"kty": "oct", "k": segment(SECRET_BYTES), "kid": "odd"}

# By why a key does not count: how it is published, and a token signed with it.
ODD_KEYS: dict[str, tuple[Any, str]] = {
    "for RS512": (jwk(RSA_KEY, "odd", alg="RS512"), issued_by_key(RSA_KEY, "odd", alg="RS512")),
    "for RS512, used for RS256": (jwk(RSA_KEY, "odd", alg="RS512"), issued_by_key(RSA_KEY, "odd")),
    "for PS256": (jwk(RSA_KEY, "odd", alg="PS256"), issued_by_key(RSA_KEY, "odd", alg="PS256")),
    "a secret": (OCT_JWK, hs256("odd", SECRET_BYTES)),
    "a secret for HS256": ({**OCT_JWK, "alg": "HS256"}, hs256("odd", SECRET_BYTES)),
    "P-384": (jwk(P384_KEY, "odd"), issued_by_key(P384_KEY, "odd", alg="ES384")),
    "RSA of 1024 bits": (jwk(SHORT_KEY, "odd"), issued_by_key(SHORT_KEY, "odd")),
    "private": (PRIVATE_JWK, issued_by_key(NEW_KEY, "odd")),
    "for encryption": (jwk(NEW_KEY, "odd", use="enc"), issued_by_key(NEW_KEY, "odd")),
    "without kid": (jwk(NEW_KEY, ABSENT), issued_by_key(NEW_KEY, ABSENT)),
    "kid empty": (jwk(NEW_KEY, ""), issued_by_key(NEW_KEY, "")),
    "without its y": (jwk(NEW_KEY, "odd", y=ABSENT), issued_by_key(NEW_KEY, "odd")),
    "a secret without its octets": ({"kty": "oct", "kid": "odd"}, hs256("odd", SECRET_BYTES)),
    "kid a list": (jwk(NEW_KEY, ["odd"]), issued_by_key(NEW_KEY, "odd")),
    "alg a list": (jwk(NEW_KEY, "odd", alg=["ES256"]), issued_by_key(NEW_KEY, "odd")),
    "P-384 for ES256": (jwk(P384_KEY, "odd", alg="ES256"), issued_by_key(P384_KEY, "odd", alg="ES384")),
    "not an object": (["odd"], issued_by_key(NEW_KEY, "odd")),
    "of a kind unheard of": (jwk(NEW_KEY, "odd", kty="lattice"), issued_by_key(NEW_KEY, "odd")),
}


@pytest.mark.parametrize(("odd", "token"), ODD_KEYS.values(), ids=ODD_KEYS)
def test_a_key_that_does_not_count_spoils_no_other(
    client: FlaskClient, key_server: KeyServer, odd: Any, token: str
) -> None:
    key_server.publish(GOOD_KEYS[0], odd, GOOD_KEYS[1])
    assert_refused(ask(client, token), UNKNOWN_KEY)
    assert_accepted(ask(client, GOOD))
    assert_accepted(ask(client, issued_by_key(RSA_KEY, "rsa")))


def test_the_same_keys_count_where_nothing_is_odd(client: FlaskClient, key_server: KeyServer) -> None:
    key_server.publish(jwk(NEW_KEY, "odd", alg="ES256"), jwk(RSA_KEY, "rsa", use=ABSENT, alg="RS256"))
    assert_accepted(ask(client, issued_by_key(NEW_KEY, "odd")))
    assert_accepted(ask(client, issued_by_key(RSA_KEY, "rsa")))


def test_keys_are_fetched_once_and_not_before_one_is_needed(
    client: FlaskClient, key_server: KeyServer
) -> None:
    assert_refused(ask(client, issued_by_key(EC_KEY, ABSENT)), UNKNOWN_KEY)
    assert key_server.fetches == 0
    for _ in range(20):
        assert_accepted(ask(client, GOOD))
        assert_accepted(ask(client, issued_by_key(RSA_KEY, "rsa")))
    assert key_server.fetches == 1


def test_a_new_key_counts_at_the_first_request_after_the_pause(
    client: FlaskClient, key_server: KeyServer, seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, GOOD))
    key_server.publish(*GOOD_KEYS, jwk(NEW_KEY, "new"))
    assert_refused(ask(client, ROTATED), UNKNOWN_KEY)
    assert key_server.fetches == 1
    seconds(refetch=0)
    assert_accepted(ask(client, ROTATED))
    assert_accepted(ask(client, GOOD))
    assert key_server.fetches == 2


@pytest.mark.parametrize("warm", [False, True])
def test_a_storm_of_made_up_kids_makes_one_more_fetch_at_most(
    client: FlaskClient, key_server: KeyServer, seconds: Callable[..., None], warm: bool
) -> None:
    if warm:
        assert_accepted(ask(client, GOOD))
    before = key_server.fetches
    forged = [issued_by_key(NEW_KEY, f"made up {number}") for number in range(200)]
    for response in ask_at_once(client, forged, threads=8):
        assert_refused(response, UNKNOWN_KEY)
    assert key_server.fetches <= before + 1
    seconds(refetch=0)  # but for the pause, each of them would have made one
    assert_refused(ask(client, forged[0]), UNKNOWN_KEY)
    assert_refused(ask(client, forged[1]), UNKNOWN_KEY)
    assert key_server.fetches == 3


def test_concurrent_first_requests_make_one_fetch_and_all_succeed(
    client: FlaskClient, key_server: KeyServer
) -> None:
    entered = threading.Semaphore(0)
    client.application.before_request(entered.release)
    with ThreadPoolExecutor(1) as pool:
        with key_server.holding():
            responses = pool.submit(ask_at_once, client, [GOOD] * 8, threads=8)
            for _ in range(8):
                assert entered.acquire(timeout=TIMEOUT_SECONDS)
            key_server.wait_for_fetches(1)
        for response in responses.result(TIMEOUT_SECONDS):
            assert_accepted(response)
    assert key_server.fetches == 1


FAILURES = {
    "500": Answer(500, b"{}"),
    "500 with the keys": Answer(500, json.dumps({"keys": GOOD_KEYS}).encode()),
    "404": Answer(404, b"not found"),
    "redirect": Answer(302, b"", location="/elsewhere"),
    "garbage": Answer(200, b"\xff\xfe\x00garbage"),
    "not JSON": Answer(200, b"<html>Down for maintenance</html>"),
    "cut off": Answer(200, json.dumps({"keys": GOOD_KEYS}).encode()[:-5]),
    "nothing": Answer(200, b""),
    "not an object": Answer(200, json.dumps(GOOD_KEYS).encode()),
    "no set": Answer(200, b"{}"),
    "gone": None,
}


@contextmanager
def failing(key_server: KeyServer, failure: Answer | None) -> Iterator[None]:
    """Let the key server fail in this block, and then answer as before."""
    if failure is None:
        with key_server.gone():
            yield
        return
    before, key_server.answer = key_server.answer, failure
    yield
    key_server.answer = before


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_keys_stay_good_for_a_while_when_the_key_server_fails(
    client: FlaskClient,
    key_server: KeyServer,
    seconds: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    failure: Answer | None,
) -> None:
    assert_accepted(ask(client, GOOD))
    with failing(key_server, failure):
        seconds(refetch=0, refresh=0)
        ask_until(client, GOOD, lambda _: caplog.text.count("no keys from MEDMITRA_JWKS_URL") >= 2)
        assert_accepted(ask(client, GOOD))
        seconds(stale=0)
        assert_unavailable(ask(client, GOOD))
    assert not [part for part in GOOD.split(".") if part in caplog.text]


def test_a_key_taken_back_stops_being_good_at_the_first_request_after_a_while(
    client: FlaskClient, key_server: KeyServer, seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, GOOD))
    key_server.publish(jwk(NEW_KEY, "new"))
    assert_accepted(ask(client, GOOD))
    assert key_server.fetches == 1
    seconds(refetch=0, refresh=0)
    assert_refused(ask(client, GOOD), UNKNOWN_KEY)


@pytest.mark.parametrize("left", [[], [OCT_JWK, jwk(P384_KEY, "ec")]], ids=["no key", "none of use"])
def test_the_last_key_can_be_taken_back(
    client: FlaskClient,
    key_server: KeyServer,
    seconds: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    left: list[dict[str, Any]],
) -> None:
    assert_accepted(ask(client, GOOD))
    key_server.publish(*left)
    seconds(refetch=0, refresh=0)
    assert_refused(ask(client, GOOD), UNKNOWN_KEY)
    assert "MEDMITRA_JWKS_URL has no key for ES256 or RS256" in caplog.text


def test_a_key_replaced_under_its_name_stops_being_good(
    client: FlaskClient, key_server: KeyServer, seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, GOOD))
    key_server.publish(jwk(NEW_KEY, "ec"))
    seconds(refetch=0, refresh=0)
    assert_refused(ask(client, GOOD), NO_MATCH)
    assert_accepted(ask(client, issued_by_key(NEW_KEY, "ec")))


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_without_keys_it_says_so_and_recovers(
    client: FlaskClient,
    key_server: KeyServer,
    seconds: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    failure: Answer | None,
) -> None:
    with failing(key_server, failure):
        assert_unavailable(ask(client, GOOD))
        fetches = key_server.fetches
        assert_unavailable(ask(client, GOOD))  # without asking the key server again
        assert key_server.fetches == fetches
        assert caplog.text.count("no keys from MEDMITRA_JWKS_URL") == 1
    seconds(refetch=0)
    assert_accepted(ask(client, GOOD))
    assert not [part for part in GOOD.split(".") if part in caplog.text]


def test_an_unknown_kid_is_no_forgery_while_there_is_no_telling(
    client: FlaskClient, key_server: KeyServer, seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, GOOD))
    seconds(refetch=0)
    with key_server.gone():
        assert_unavailable(ask(client, ROTATED))
        assert_accepted(ask(client, GOOD))
    assert_refused(ask(client, ROTATED), UNKNOWN_KEY)


def test_a_redirect_is_not_followed(client: FlaskClient, key_server: KeyServer) -> None:
    with closing(KeyServer()) as elsewhere:
        elsewhere.publish(*GOOD_KEYS)
        key_server.answer = Answer(302, b"", location=elsewhere.url)
        assert_unavailable(ask(client, GOOD))
        assert (key_server.fetches, elsewhere.fetches) == (1, 0)


def test_a_token_cannot_say_where_its_key_is(client: FlaskClient) -> None:
    with closing(KeyServer()) as forgers:
        forgers.publish(jwk(NEW_KEY, "ec"), jwk(NEW_KEY, "new"))
        for kid, reason in (("ec", NO_MATCH), ("new", UNKNOWN_KEY)):
            first = header(alg="ES256", kid=kid, jku=forgers.url, x5u=forgers.url)
            assert_refused(ask(client, signed(first, claims(), NEW_KEY, "ES256")), reason)
        assert forgers.fetches == 0


def test_a_key_server_that_hangs_holds_a_request_no_longer_than_said(
    client: FlaskClient, key_server: KeyServer, seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, GOOD))
    seconds(fetch=0.05, refetch=0)
    with ThreadPoolExecutor(1) as pool, key_server.holding():
        # That it ends at all is the proof: the key server answers only when the block ends.
        assert_unavailable(pool.submit(ask, client, ROTATED).result(TIMEOUT_SECONDS))
        assert_accepted(ask(client, GOOD))
        key_server.publish(*GOOD_KEYS, jwk(NEW_KEY, "new"))
    seconds(fetch=TIMEOUT_SECONDS)
    ask_until(client, ROTATED, accepted, meanwhile=assert_unavailable)


def test_a_silent_key_server_is_given_up_and_asked_again(
    layout_database: CasesDatabase, key_server: KeyServer, seconds: Callable[..., None]
) -> None:
    seconds(fetch=0.05, refetch=0)
    with client_of(layout_database, key_server.url) as client, key_server.holding():
        ask_until(client, GOOD, lambda _: key_server.fetches > 1, meanwhile=assert_unavailable)


def test_known_keys_do_not_wait_for_a_key_server_that_has_failed(
    client: FlaskClient, key_server: KeyServer, seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, GOOD))
    seconds(refetch=0)
    with failing(key_server, FAILURES["500"]):
        assert_unavailable(ask(client, ROTATED))
    seconds(refetch=0, refresh=0)
    with ThreadPoolExecutor(2) as pool:
        with key_server.holding():
            waiting = pool.submit(ask, client.application.test_client(), ROTATED)
            key_server.wait_for_fetches(3)
            assert_accepted(pool.submit(ask, client, GOOD).result(TIMEOUT_SECONDS))
            assert not waiting.done()
            key_server.publish(*GOOD_KEYS, jwk(NEW_KEY, "new"))
        assert_accepted(waiting.result(TIMEOUT_SECONDS))


def test_known_keys_wait_only_so_long_for_a_key_server_that_falls_silent(
    client: FlaskClient, key_server: KeyServer, seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, GOOD))
    seconds(refetch=0, refresh=0, fetch=0.05)
    with key_server.holding():
        assert_accepted(ask(client, GOOD))
        key_server.wait_for_fetches(2)


def test_no_proxy_of_the_environment_comes_between(
    client: FlaskClient, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert_accepted(ask(client, GOOD))
    assert key_server.fetches == 1


def test_a_fetch_that_cannot_begin_does_not_keep_the_next_from_beginning(
    client: FlaskClient, seconds: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        assert ask(client, GOOD).status_code == 500
    seconds(refetch=0)
    assert_accepted(ask(client, GOOD))
