"""Makes valid and invalid bearer tokens, and checks the service's responses to them."""

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from flask.testing import FlaskClient
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from werkzeug.test import TestResponse

from tests.support.factories import DOCTOR

URL = "/cases/all_cases"
ASKED = f"{URL}?user_id={DOCTOR}"

SECRET = "a secret that only the issuer and the service have"
SECRET_BYTES = SECRET.encode()
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
ISSUER = "https://issuer.example/auth/v1"

INVALID = 'Bearer error="invalid_token"'
MALFORMED = "the token is malformed"
OTHER_ALGORITHM = "the token is signed with another algorithm (alg) than its key is for"
NO_MATCH = "the token's signature does not match"
EXPIRED = "the token has expired (exp)"
NOT_YET = "the token is not valid yet (nbf, iat)"
OTHER_AUDIENCE = "the token is for another audience (aud)"
OTHER_ISSUER = "the token is from another issuer (iss)"
NOT_A_UUID = "the token's subject (sub) is not a UUID"

HOUR = 3_600
DAY = 24 * HOUR

ABSENT = object()  # as a value: leaves the claim or header field out


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a valid token for ``DOCTOR``, with these changes."""
    now = int(time.time())
    valid = {"sub": DOCTOR, "aud": "authenticated", "iss": ISSUER, "iat": now, "exp": now + HOUR}
    return _without_absent({**valid, **changes})


def header(**changes: Any) -> dict[str, Any]:
    """Return the header of a valid token, with these changes."""
    return _without_absent({"alg": "HS256", "typ": "JWT", **changes})


def _without_absent(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ABSENT}


def segment(content: Any) -> str:
    """Return a segment of a token: the base64url form of the bytes, or of the content's JSON."""
    octets = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def signed(head: Any, payload: Any, key: Any = SECRET_BYTES, algorithm: str = "HS256") -> str:
    """Return a signed token with any header and payload, including those that PyJWT refuses to sign."""
    signing_input = f"{segment(head)}.{segment(payload)}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(signing_input.encode(), key)
    return f"{signing_input}.{segment(signature)}"


def issued(**changes: Any) -> str:
    """Return a valid token, signed with ``SECRET``, with these changes to its claims."""
    return signed(header(), claims(**changes))


def issued_by_key(key: Any, kid: Any, *, alg: str | None = None, **changes: Any) -> str:
    """Return a valid token, signed with a private key, with these changes to its claims."""
    alg = alg or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
    return signed(header(alg=alg, kid=kid), claims(**changes), key, alg)


def jwk(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, kid: Any, **members: Any) -> dict[str, Any]:
    """Return the public key of a private key as its issuer publishes it."""
    if isinstance(key, rsa.RSAPrivateKey):
        public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return _without_absent({**public, "kid": kid, "use": "sig", **members})


def bearer(token: str) -> dict[str, str]:
    """Return the header fields of a request with this token."""
    return {"Authorization": f"Bearer {token}"}


def ask(client: FlaskClient, token: str, target: str = ASKED) -> TestResponse:
    """Request the cases of ``DOCTOR``, or another target, with this token."""
    return client.get(target, headers=bearer(token))


def detail(response: TestResponse) -> str:
    """Return the detail of an error; assert that the response has the form of all errors."""
    assert response.content_type == "application/json"
    body: dict[str, str] = response.get_json()
    assert list(body) == ["detail"]
    return body["detail"]


def assert_refused(response: TestResponse, reason: str) -> None:
    """Assert that the service rejected the token for this reason."""
    assert (response.status_code, detail(response)) == (401, reason)
    assert response.headers.getlist("WWW-Authenticate") == [INVALID]
