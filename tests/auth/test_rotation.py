"""Keys change without signing anybody out: two secrets, a secret and a key URL, two keys under one id."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from flask.testing import FlaskClient

from medmitra_cases.auth import create_verifier
from medmitra_cases.auth.tokens import mint_token
from medmitra_cases.errors import SettingsError
from tests.auth.test_jwks import (
    KEYS,
    UNKNOWN_KEY,
    accepted,
    assert_unavailable,
    client_of,
    pem,
    set_seconds,
)
from tests.support import factories
from tests.support.factories import DOCTOR, CasesDatabase
from tests.support.key_server import KeyServer
from tests.support.tokens import (
    EC_KEY,
    EXPIRED,
    MALFORMED,
    NO_MATCH,
    OTHER_ALGORITHM,
    OTHER_AUDIENCE,
    RSA_KEY,
    SECRET,
    SECRET_BYTES,
    ask,
    assert_refused,
    claims,
    header,
    issued,
    issued_by_key,
    jwk,
    segment,
    signed,
)

__all__ = ["set_seconds"]  # a fixture for every test: no time runs out

# These tests do not depend on the table layout.
pytestmark = [
    pytest.mark.parametrize("layout_database", ["own_table"], indirect=True),
    pytest.mark.usefixtures("layout_database"),
]

PREVIOUS = "the secret that the issuer signed with until this morning"
SECRETS = {"MEDMITRA_JWT_SECRET": SECRET, "MEDMITRA_JWT_SECRET_PREVIOUS": PREVIOUS}
NEW_KEY = ec.generate_private_key(ec.SECP256R1())
NEW_RSA_KEY = rsa.generate_private_key(65537, 2048)


def by_previous(**changes: object) -> str:
    return signed(header(), claims(**changes), PREVIOUS.encode())


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    """The issuer's key server, with the keys ``ec`` and ``rsa``."""
    with closing(KeyServer()) as server:
        server.publish(*KEYS)
        yield server


class TestTwoSecrets:
    @pytest.fixture
    def client(self, layout_database: CasesDatabase) -> Iterator[FlaskClient]:
        with factories.client_on(layout_database.service_dsn, **SECRETS) as client:
            yield client

    def test_both_verify(self, client: FlaskClient) -> None:
        assert accepted(ask(client, issued()))
        assert accepted(ask(client, by_previous()))

    @pytest.mark.parametrize(
        ("token", "reason"),
        [
            (signed(header(), claims(), b"another secret of more than 32 bytes"), NO_MATCH),
            (signed(header(), claims(), SECRET_BYTES + PREVIOUS.encode()), NO_MATCH),
            (signed(header(), claims(), b""), NO_MATCH),
            (signed(header(alg="HS384"), claims(), PREVIOUS.encode(), "HS384"), OTHER_ALGORITHM),
            (f"{segment(header(alg='none'))}.{segment(claims())}.", OTHER_ALGORITHM),
            (by_previous(exp=1), EXPIRED),
            (by_previous(aud="anon"), OTHER_AUDIENCE),
            (issued(exp=1), EXPIRED),
            ("x.y.z", MALFORMED),
        ],
    )
    def test_all_else_holds_for_both(self, client: FlaskClient, token: str, reason: str) -> None:
        assert_refused(ask(client, token), reason)

    def test_new_tokens_are_signed_with_the_first(self, client: FlaskClient) -> None:
        settings = factories.settings("dbname=postgres", **SECRETS)
        token = mint_token(settings, DOCTOR, minutes=1)
        assert accepted(ask(client, token))
        jwt.decode(token, SECRET, ["HS256"], audience="authenticated")

    def test_the_previous_alone_is_no_setting(self) -> None:
        with pytest.raises(SettingsError, match="SECRET_PREVIOUS has no effect without MEDMITRA_JWT_SECRET"):
            factories.settings("dbname=postgres", MEDMITRA_JWT_SECRET_PREVIOUS=PREVIOUS)


REFUSED = {
    "HS256 with the public key as secret": (signed(header(kid="ec"), claims(), pem(EC_KEY)), NO_MATCH),
    "HS256 with the public RSA key as secret": (
        signed(header(kid="rsa"), claims(), pem(RSA_KEY)),
        NO_MATCH,
    ),
    "HS256 with the JWK as secret": (
        signed(header(kid="ec"), claims(), json.dumps(KEYS[0]).encode()),
        NO_MATCH,
    ),
    "HS384 with the secret": (
        signed(header(alg="HS384", kid="ec"), claims(), SECRET_BYTES, "HS384"),
        OTHER_ALGORITHM,
    ),
    "HS512 without kid": (signed(header(alg="HS512"), claims(), SECRET_BYTES, "HS512"), UNKNOWN_KEY),
    "ES256 by a header, HS256 by the secret": (
        f"{segment(header(alg='ES256', kid='ec'))}.{segment(claims())}." + issued().rpartition(".")[2],
        NO_MATCH,
    ),
    "ES256 by another key": (issued_by_key(NEW_KEY, "ec"), NO_MATCH),
    "ES256 without kid": (signed(header(alg="ES256"), claims(), EC_KEY, "ES256"), UNKNOWN_KEY),
    "alg none": (f"{segment(header(alg='none', kid='ec'))}.{segment(claims())}.", OTHER_ALGORITHM),
    "alg a list": (signed(header(alg=["HS256"], kid="ec"), claims()), OTHER_ALGORITHM),
    "alg in lower case": (signed(header(alg="hs256", kid="ec"), claims()), OTHER_ALGORITHM),
    "no alg": (f"{segment({'kid': 'ec'})}.{segment(claims())}.AAAA", OTHER_ALGORITHM),
}


class TestSecretAndUrl:
    @pytest.fixture
    def client(self, layout_database: CasesDatabase, key_server: KeyServer) -> Iterator[FlaskClient]:
        with client_of(layout_database, key_server.url, **SECRETS) as client:
            yield client

    @pytest.mark.parametrize(
        "token",
        [
            issued(),
            by_previous(),
            issued_by_key(EC_KEY, "ec"),
            issued_by_key(RSA_KEY, "rsa"),
            signed(header(kid="ec"), claims()),  # alg chooses the source, not kid
        ],
        ids=["HS256", "HS256 by the previous secret", "ES256", "RS256", "HS256 with a key's kid"],
    )
    def test_both_sources_verify(self, client: FlaskClient, token: str) -> None:
        assert accepted(ask(client, token))

    @pytest.mark.parametrize(("token", "reason"), REFUSED.values(), ids=REFUSED)
    def test_each_only_for_its_algorithms(self, client: FlaskClient, token: str, reason: str) -> None:
        response = ask(client, token)
        assert response.status_code == 401
        assert_refused(response, reason)

    def test_the_secret_needs_no_key_server(
        self, client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None]
    ) -> None:
        set_seconds(fetch=0.05)
        with key_server.gone():
            assert_unavailable(ask(client, issued_by_key(EC_KEY, "ec")))
            assert accepted(ask(client, issued()))
            assert accepted(ask(client, by_previous()))
        assert key_server.fetches == 0


class TestOneId:
    @pytest.fixture
    def client(self, layout_database: CasesDatabase, key_server: KeyServer) -> Iterator[FlaskClient]:
        with client_of(layout_database, key_server.url) as client:
            yield client

    @pytest.mark.parametrize("keys", [(EC_KEY, RSA_KEY), (RSA_KEY, EC_KEY)], ids=["EC first", "RSA first"])
    def test_keys_of_two_types(
        self,
        client: FlaskClient,
        key_server: KeyServer,
        keys: tuple[ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, ...],
    ) -> None:
        key_server.publish(*(jwk(key, "one") for key in keys))
        for key in keys:
            assert accepted(ask(client, issued_by_key(key, "one")))
        assert_refused(ask(client, issued_by_key(NEW_KEY, "one")), NO_MATCH)
        assert_refused(ask(client, issued_by_key(NEW_RSA_KEY, "one")), NO_MATCH)
        assert_refused(ask(client, issued_by_key(RSA_KEY, "one", alg="PS256")), OTHER_ALGORITHM)
        assert_refused(ask(client, signed(header(kid="one"), claims())), OTHER_ALGORITHM)
        assert key_server.fetches == 1

    def test_two_keys_of_one_type(self, client: FlaskClient, key_server: KeyServer) -> None:
        key_server.publish(jwk(EC_KEY, "one"), jwk(NEW_KEY, "one"))
        assert accepted(ask(client, issued_by_key(EC_KEY, "one")))
        assert accepted(ask(client, issued_by_key(NEW_KEY, "one")))
        assert_refused(ask(client, issued_by_key(NEW_KEY, "one", exp=1)), EXPIRED)

    def test_the_second_type_comes_later(
        self, client: FlaskClient, key_server: KeyServer, set_seconds: Callable[..., None]
    ) -> None:
        key_server.publish(jwk(EC_KEY, "one"))
        assert accepted(ask(client, issued_by_key(EC_KEY, "one")))
        key_server.publish(jwk(EC_KEY, "one"), jwk(RSA_KEY, "one"))
        assert_refused(ask(client, issued_by_key(RSA_KEY, "one")), OTHER_ALGORITHM)
        set_seconds(refetch=0)
        assert accepted(ask(client, issued_by_key(RSA_KEY, "one")))
        assert accepted(ask(client, issued_by_key(EC_KEY, "one")))

    def test_an_unusable_key_hides_no_other(self, client: FlaskClient, key_server: KeyServer) -> None:
        p384 = jwk(ec.generate_private_key(ec.SECP384R1()), "one")
        key_server.publish(jwk(EC_KEY, "one"), p384, jwk(NEW_KEY, "one", use="enc"))
        assert accepted(ask(client, issued_by_key(EC_KEY, "one")))


def test_without_keys_there_is_no_verifier() -> None:
    assert create_verifier(factories.settings("dbname=postgres")) is None
