"""Keys from the JWKS URL of the issuer: accepted keys, how long they are valid, and failed fetches."""

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

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

UNKNOWN_KEY = "the token is signed with a key (kid) that its issuer does not have"
NEW_KEY = ec.generate_private_key(ec.SECP256R1())
KEYS = (jwk(EC_KEY, "ec"), jwk(RSA_KEY, "rsa"))
TOKEN = issued_by_key(EC_KEY, "ec")
TOKEN_OF_NEW_KEY = issued_by_key(NEW_KEY, "new")
NEVER = 1_000_000


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    """The issuer's key server, which publishes the keys ``ec`` and ``rsa``."""
    with closing(KeyServer()) as server:
        server.publish(*KEYS)
        yield server


@pytest.fixture(autouse=True)
def set_seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets the times of ``jwks``. The initial ones are too long to pass during a test."""

    def set_times(**values: float) -> None:
        for name, value in values.items():
            monkeypatch.setattr(jwks, f"{name.upper()}_SECONDS", value)

    set_times(fetch=TIMEOUT_SECONDS, refetch=NEVER, refresh=NEVER, stale=NEVER)
    return set_times


@contextmanager
def client_of(database: CasesDatabase, url: str, **variables: str) -> Iterator[FlaskClient]:
    """A client of a service that fetches its keys from this URL."""
    with factories.client_on(database.service_dsn, MEDMITRA_JWKS_URL=url, **variables) as client:
        try:
            yield client
        finally:
            for thread in threading.enumerate():
                if thread.name == "signing-keys":  # otherwise it could log during the next test
                    thread.join(TIMEOUT_SECONDS)


@pytest.fixture
def client(layout_database: CasesDatabase, key_server: KeyServer) -> Iterator[FlaskClient]:
    """A client of a service that gets its keys from ``key_server``, with any cases of earlier tests."""
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


def send_until(
    client: FlaskClient,
    token: str,
    is_expected: Callable[[TestResponse], bool],
    check_earlier: Callable[[TestResponse], None] = assert_accepted,
) -> TestResponse:
    """Send requests until the response is as expected, because keys are fetched in the background."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_expected(response := ask(client, token)):
        assert time.monotonic() < deadline
        check_earlier(response)
    return response


def send_at_once(client: FlaskClient, tokens: list[str], threads: int) -> list[TestResponse]:
    """Send a request with each token, from several threads that begin together."""
    barrier = threading.Barrier(threads)

    def send_all(tokens_of_thread: list[str]) -> list[TestResponse]:
        client_of_thread = client.application.test_client()
        barrier.wait(TIMEOUT_SECONDS)
        return [ask(client_of_thread, token) for token in tokens_of_thread]

    with ThreadPoolExecutor(threads) as pool:
        shares = [tokens[number::threads] for number in range(threads)]
        return [response for share in pool.map(send_all, shares) for response in share]


@pytest.mark.parametrize(("key", "kid"), [(EC_KEY, "ec"), (RSA_KEY, "rsa")], ids=["ES256", "RS256"])
def test_an_ec_key_and_an_rsa_key_are_accepted(
    client: FlaskClient, database: CasesDatabase, key: Any, kid: str
) -> None:
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
        "HS256 with the JWK as secret": hs256("ec", json.dumps(KEYS[0]).encode()),
        "HS256 with the curve's x as secret": hs256("ec", KEYS[0]["x"].encode()),
        "ES384 by the right key": issued_by_key(EC_KEY, "ec", alg="ES384"),
        "RS512 by the right key": issued_by_key(RSA_KEY, "rsa", alg="RS512"),
        "PS256 by the right key": issued_by_key(RSA_KEY, "rsa", alg="PS256"),
        "alg none": f"{segment(header(alg='none', kid='ec'))}.{segment(claims())}.",
        "kid of a key of the other type": issued_by_key(EC_KEY, "rsa"),
    },
    NO_MATCH: {
        "kid of another key": issued_by_key(NEW_KEY, "ec"),
        "signed RS512": signed(header(alg="RS256", kid="rsa"), claims(), RSA_KEY, "RS512"),
        "no signature": TOKEN[: TOKEN.rindex(".") + 1],
        "signature of zeros": TOKEN[: TOKEN.rindex(".") + 1] + segment(bytes(64)),
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
def test_an_invalid_token_gets_a_401(client: FlaskClient, token: str, reason: str) -> None:
    assert_refused(ask(client, token), reason)
    assert_accepted(ask(client, TOKEN))


def test_the_issuer_is_checked_if_it_is_set(layout_database: CasesDatabase, key_server: KeyServer) -> None:
    with client_of(layout_database, key_server.url, MEDMITRA_JWT_ISSUER=ISSUER) as client:
        assert_accepted(ask(client, TOKEN))
        assert_refused(ask(client, issued_by_key(EC_KEY, "ec", iss="https://other.example")), OTHER_ISSUER)


P384_KEY = ec.generate_private_key(ec.SECP384R1())
SHORT_KEY = rsa.generate_private_key(65537, 1_024)
PRIVATE_JWK = {**ECAlgorithm.to_jwk(NEW_KEY, as_dict=True), "kid": "odd"}
OCT_JWK = {"kty": "oct", "k": segment(SECRET_BYTES), "kid": "odd"}

# For each reason to ignore a key: the key as published, and a token signed with it.
IGNORED_KEYS: dict[str, tuple[Any, str]] = {
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
    "of an unknown type": (jwk(NEW_KEY, "odd", kty="lattice"), issued_by_key(NEW_KEY, "odd")),
}


@pytest.mark.parametrize(("ignored", "token"), IGNORED_KEYS.values(), ids=IGNORED_KEYS)
def test_an_ignored_key_does_not_affect_the_others(
    client: FlaskClient, key_server: KeyServer, ignored: Any, token: str
) -> None:
    key_server.publish(KEYS[0], ignored, KEYS[1])
    assert_refused(ask(client, token), UNKNOWN_KEY)
    assert_accepted(ask(client, TOKEN))
    assert_accepted(ask(client, issued_by_key(RSA_KEY, "rsa")))


def test_a_key_with_a_supported_alg_is_accepted(client: FlaskClient, key_server: KeyServer) -> None:
    key_server.publish(jwk(NEW_KEY, "odd", alg="ES256"), jwk(RSA_KEY, "rsa", use=ABSENT, alg="RS256"))
    assert_accepted(ask(client, issued_by_key(NEW_KEY, "odd")))
    assert_accepted(ask(client, issued_by_key(RSA_KEY, "rsa")))


def test_keys_are_fetched_once_when_one_is_needed(client: FlaskClient, key_server: KeyServer) -> None:
    assert_refused(ask(client, issued_by_key(EC_KEY, ABSENT)), UNKNOWN_KEY)
    assert key_server.fetches == 0
    for _ in range(20):
        assert_accepted(ask(client, TOKEN))
        assert_accepted(ask(client, issued_by_key(RSA_KEY, "rsa")))
    assert key_server.fetches == 1


def test_a_new_key_is_accepted_at_the_first_request_after_the_pause(
    client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, TOKEN))
    key_server.publish(*KEYS, jwk(NEW_KEY, "new"))
    assert_refused(ask(client, TOKEN_OF_NEW_KEY), UNKNOWN_KEY)
    assert key_server.fetches == 1
    set_seconds(refetch=0)
    assert_accepted(ask(client, TOKEN_OF_NEW_KEY))
    assert_accepted(ask(client, TOKEN))
    assert key_server.fetches == 2


@pytest.mark.parametrize("warm", [False, True])
def test_many_unknown_kids_cause_at_most_one_more_fetch(
    client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None], warm: bool
) -> None:
    if warm:
        assert_accepted(ask(client, TOKEN))
    before = key_server.fetches
    forged = [issued_by_key(NEW_KEY, f"made up {number}") for number in range(200)]
    for response in send_at_once(client, forged, threads=8):
        assert_refused(response, UNKNOWN_KEY)
    assert key_server.fetches <= before + 1
    set_seconds(refetch=0)  # without the pause, each of them causes a fetch
    assert_refused(ask(client, forged[0]), UNKNOWN_KEY)
    assert_refused(ask(client, forged[1]), UNKNOWN_KEY)
    assert key_server.fetches == 3


def test_concurrent_first_requests_cause_one_fetch_and_all_succeed(
    client: FlaskClient, key_server: KeyServer
) -> None:
    entered = threading.Semaphore(0)
    client.application.before_request(entered.release)
    with ThreadPoolExecutor(1) as pool:
        with key_server.holding():
            responses = pool.submit(send_at_once, client, [TOKEN] * 8, threads=8)
            for _ in range(8):
                assert entered.acquire(timeout=TIMEOUT_SECONDS)
            key_server.wait_for_fetches(1)
        for response in responses.result(TIMEOUT_SECONDS):
            assert_accepted(response)
    assert key_server.fetches == 1


FAILURES = {
    "500": Answer(500, b"{}"),
    "500 with the keys": Answer(500, json.dumps({"keys": KEYS}).encode()),
    "404": Answer(404, b"not found"),
    "redirect": Answer(302, b"", location="/elsewhere"),
    "not UTF-8": Answer(200, b"\xff\xfe\x00garbage"),
    "not JSON": Answer(200, b"<html>Down for maintenance</html>"),
    "incomplete JSON": Answer(200, json.dumps({"keys": KEYS}).encode()[:-5]),
    "empty body": Answer(200, b""),
    "not an object": Answer(200, json.dumps(KEYS).encode()),
    "no keys": Answer(200, b"{}"),
    "connection refused": None,
}


@contextmanager
def failing(key_server: KeyServer, failure: Answer | None) -> Iterator[None]:
    """Make the key server fail in this block."""
    if failure is None:
        with key_server.gone():
            yield
        return
    before, key_server.answer = key_server.answer, failure
    yield
    key_server.answer = before


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_keys_stay_valid_for_a_while_if_the_key_server_fails(
    client: FlaskClient,
    key_server: KeyServer,
    set_seconds: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    failure: Answer | None,
) -> None:
    assert_accepted(ask(client, TOKEN))
    with failing(key_server, failure):
        set_seconds(refetch=0, refresh=0)
        send_until(client, TOKEN, lambda _: caplog.text.count("no keys from MEDMITRA_JWKS_URL") >= 2)
        assert_accepted(ask(client, TOKEN))
        set_seconds(stale=0)
        assert_unavailable(ask(client, TOKEN))
    assert not [part for part in TOKEN.split(".") if part in caplog.text]


def test_a_revoked_key_is_refused_at_the_first_request_after_the_refresh_time(
    client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, TOKEN))
    key_server.publish(jwk(NEW_KEY, "new"))
    assert_accepted(ask(client, TOKEN))
    assert key_server.fetches == 1
    set_seconds(refetch=0, refresh=0)
    assert_refused(ask(client, TOKEN), UNKNOWN_KEY)


@pytest.mark.parametrize("remaining", [[], [OCT_JWK, jwk(P384_KEY, "ec")]], ids=["no key", "no usable key"])
def test_the_last_key_can_be_revoked(
    client: FlaskClient,
    key_server: KeyServer,
    set_seconds: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    remaining: list[dict[str, Any]],
) -> None:
    assert_accepted(ask(client, TOKEN))
    key_server.publish(*remaining)
    set_seconds(refetch=0, refresh=0)
    assert_refused(ask(client, TOKEN), UNKNOWN_KEY)
    assert "MEDMITRA_JWKS_URL has no key for ES256 or RS256" in caplog.text


def test_a_key_replaced_under_its_kid_is_refused(
    client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, TOKEN))
    key_server.publish(jwk(NEW_KEY, "ec"))
    set_seconds(refetch=0, refresh=0)
    assert_refused(ask(client, TOKEN), NO_MATCH)
    assert_accepted(ask(client, issued_by_key(NEW_KEY, "ec")))


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_requests_get_a_500_without_keys_until_a_fetch_succeeds(
    client: FlaskClient,
    key_server: KeyServer,
    set_seconds: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    failure: Answer | None,
) -> None:
    with failing(key_server, failure):
        assert_unavailable(ask(client, TOKEN))
        fetches = key_server.fetches
        assert_unavailable(ask(client, TOKEN))  # without another fetch
        assert key_server.fetches == fetches
        assert caplog.text.count("no keys from MEDMITRA_JWKS_URL") == 1
    set_seconds(refetch=0)
    assert_accepted(ask(client, TOKEN))
    assert not [part for part in TOKEN.split(".") if part in caplog.text]


def test_an_unknown_kid_gets_a_500_while_the_key_server_fails(
    client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, TOKEN))
    set_seconds(refetch=0)
    with key_server.gone():
        assert_unavailable(ask(client, TOKEN_OF_NEW_KEY))
        assert_accepted(ask(client, TOKEN))
    assert_refused(ask(client, TOKEN_OF_NEW_KEY), UNKNOWN_KEY)


def test_a_redirect_is_not_followed(client: FlaskClient, key_server: KeyServer) -> None:
    with closing(KeyServer()) as other_server:
        other_server.publish(*KEYS)
        key_server.answer = Answer(302, b"", location=other_server.url)
        assert_unavailable(ask(client, TOKEN))
        assert (key_server.fetches, other_server.fetches) == (1, 0)


def test_a_token_cannot_name_the_url_of_its_key(client: FlaskClient) -> None:
    with closing(KeyServer()) as other_server:
        other_server.publish(jwk(NEW_KEY, "ec"), jwk(NEW_KEY, "new"))
        for kid, reason in (("ec", NO_MATCH), ("new", UNKNOWN_KEY)):
            token_header = header(alg="ES256", kid=kid, jku=other_server.url, x5u=other_server.url)
            assert_refused(ask(client, signed(token_header, claims(), NEW_KEY, "ES256")), reason)
        assert other_server.fetches == 0


def test_a_hanging_key_server_delays_a_request_no_longer_than_the_timeout(
    client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, TOKEN))
    set_seconds(fetch=0.05, refetch=0)
    with ThreadPoolExecutor(1) as pool, key_server.holding():
        # The key server responds only when the block ends, so this request ends by its timeout.
        assert_unavailable(pool.submit(ask, client, TOKEN_OF_NEW_KEY).result(TIMEOUT_SECONDS))
        assert_accepted(ask(client, TOKEN))
        key_server.publish(*KEYS, jwk(NEW_KEY, "new"))
    set_seconds(fetch=TIMEOUT_SECONDS)
    send_until(client, TOKEN_OF_NEW_KEY, accepted, check_earlier=assert_unavailable)


def test_a_fetch_from_a_hanging_key_server_is_repeated(
    layout_database: CasesDatabase, key_server: KeyServer, set_seconds: Callable[..., None]
) -> None:
    set_seconds(fetch=0.05, refetch=0)
    with client_of(layout_database, key_server.url) as client, key_server.holding():
        send_until(client, TOKEN, lambda _: key_server.fetches > 1, check_earlier=assert_unavailable)


def test_known_keys_are_used_without_a_wait_after_a_failed_fetch(
    client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, TOKEN))
    set_seconds(refetch=0)
    with failing(key_server, FAILURES["500"]):
        assert_unavailable(ask(client, TOKEN_OF_NEW_KEY))
    set_seconds(refetch=0, refresh=0)
    with ThreadPoolExecutor(2) as pool:
        with key_server.holding():
            waiting = pool.submit(ask, client.application.test_client(), TOKEN_OF_NEW_KEY)
            key_server.wait_for_fetches(3)
            assert_accepted(pool.submit(ask, client, TOKEN).result(TIMEOUT_SECONDS))
            assert not waiting.done()
            key_server.publish(*KEYS, jwk(NEW_KEY, "new"))
        assert_accepted(waiting.result(TIMEOUT_SECONDS))


def test_known_keys_are_used_after_the_timeout_of_a_hanging_key_server(
    client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, TOKEN))
    set_seconds(refetch=0, refresh=0, fetch=0.05)
    with key_server.holding():
        assert_accepted(ask(client, TOKEN))
        key_server.wait_for_fetches(2)


def test_fetches_ignore_the_proxies_of_the_environment(
    client: FlaskClient, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert_accepted(ask(client, TOKEN))
    assert key_server.fetches == 1


def test_a_thread_that_cannot_start_fails_only_the_requests_meanwhile(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot_start)
        for _ in range(2):
            assert_unavailable(ask(client, TOKEN))
    assert "no keys from MEDMITRA_JWKS_URL: can't start new thread" in caplog.text
    assert "Traceback" not in caplog.text
    assert_accepted(ask(client, TOKEN))


def test_stale_keys_are_used_if_no_thread_can_start(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, set_seconds: Callable[..., None]
) -> None:
    assert_accepted(ask(client, TOKEN))
    set_seconds(refresh=0, refetch=0)
    monkeypatch.setattr(threading.Thread, "start", cannot_start)
    assert_accepted(ask(client, TOKEN))


def cannot_start(_: threading.Thread) -> None:
    """Fail as ``start()`` does when the user has too many processes."""
    raise RuntimeError("can't start new thread")
