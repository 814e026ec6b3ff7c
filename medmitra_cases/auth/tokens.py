"""Bearer tokens: JSON Web Tokens (RFC 7519) whose subject is the doctor who asks."""

import base64
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import jwt

from medmitra_cases.auth.jwks import JwksClient
from medmitra_cases.errors import SettingsError, TokenInvalid, TokenMissing
from medmitra_cases.schemas import canonical_uuid
from medmitra_cases.settings import Settings

# Bytes. A token of Supabase has some 800; a longer one than this is not parsed.
MAX_TOKEN_BYTES = 8_192

# Seconds by which the clock of the issuer may differ from ours.
LEEWAY_SECONDS = 30

_MALFORMED = "the token is malformed"
_NO_MATCH = "the token's signature does not match"
_UNKNOWN_KEY = "the token is signed with a key (kid) that its issuer does not have"
_NOT_A_UUID = "the token's subject (sub) is not a UUID"
_REASONS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "the token has expired (exp)",
    jwt.ImmatureSignatureError: "the token is not valid yet (nbf, iat)",
    jwt.InvalidAlgorithmError: "the token is signed with another algorithm (alg) than its key is for",
    jwt.InvalidAudienceError: "the token is for another audience (aud)",
    jwt.InvalidIssuerError: "the token is from another issuer (iss)",
    jwt.InvalidSignatureError: _NO_MATCH,
    jwt.exceptions.InvalidSubjectError: _NOT_A_UUID,
}


class Verifier:
    """Verifies the token of a request, and returns the doctor it was issued to."""

    def __init__(
        self, find_keys: Callable[[str], Sequence[jwt.PyJWK]], *, audience: str, issuer: str | None
    ) -> None:
        """Keep the keys and the required claims.

        Args:
            find_keys: Returns the keys one of which may have signed a token, each bound to its one algorithm.
                Raises TokenInvalid, KeysUnavailable or an error of PyJWT if there is none.
            audience: The value that ``aud`` must be or contain.
            issuer: The value that ``iss`` must be; None if any issuer is accepted.
        """
        self._find_keys = find_keys
        self._audience = audience
        self._issuer = issuer
        self._required = ["exp", "sub", "aud", *(["iss"] if issuer else [])]

    def subject(self, authorization: str | None) -> str:
        """Verify the token of a request.

        Args:
            authorization: The value of its ``Authorization`` field, if it has one.

        Returns:
            The UUID of the doctor that the token was issued to, in lower case.

        Raises:
            TokenMissing: There is no bearer token.
            TokenInvalid: The token is invalid; the message says which check failed.
            KeysUnavailable: The keys of the issuer cannot be fetched.
        """
        token = _bearer_token(authorization)
        try:
            claims = self._claims(token)
        except jwt.MissingRequiredClaimError as error:
            raise TokenInvalid(f"the token lacks a claim ({error.claim})") from None
        except jwt.PyJWTError as error:
            raise TokenInvalid(_REASONS.get(type(error), _MALFORMED)) from None
        subject = canonical_uuid(claims["sub"])
        if subject is None:
            raise TokenInvalid(_NOT_A_UUID)
        return subject

    def _claims(self, token: str) -> dict[str, Any]:
        for key in self._find_keys(token):
            with suppress(jwt.InvalidSignatureError):
                return jwt.decode(
                    token,
                    key,
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=LEEWAY_SECONDS,
                    options={"require": self._required},
                )
        raise TokenInvalid(_NO_MATCH)


def create_verifier(settings: Settings) -> Verifier | None:
    """Make the verifier for the settings.

    Args:
        settings: ``jwt_…`` and ``jwks_url`` are used. The secrets are only for HS256, the keys of the URL
            only for ES256 and RS256.

    Returns:
        The verifier; None if the settings have no keys, so that no tokens are required.
    """
    secrets = [
        _shared_key(secret) for secret in (settings.jwt_secret, settings.jwt_secret_previous) if secret
    ]
    issuer_keys = settings.jwks_url and JwksClient(settings.jwks_url)

    def find_keys(token: str) -> Sequence[jwt.PyJWK]:
        if not issuer_keys:  # the header need not be read: another algorithm than HS256 is refused
            return secrets
        header = jwt.get_unverified_header(token)
        return secrets if secrets and header.get("alg") == "HS256" else _issuer_keys(issuer_keys, header)

    if not (secrets or issuer_keys):
        return None
    return Verifier(find_keys, audience=settings.jwt_audience, issuer=settings.jwt_issuer)


def mint_token(settings: Settings, user_id: str, *, minutes: int) -> str:
    """Issue a token that a verifier of the same settings accepts.

    Args:
        settings: ``jwt_…`` are used.
        user_id: The UUID of the doctor.
        minutes: Minutes until the token expires.

    Returns:
        The token.

    Raises:
        SettingsError: There is no secret to sign it with.
    """
    if settings.jwt_secret is None:
        raise SettingsError(
            "MEDMITRA_JWT_SECRET is not set"
            + settings.needs_tokens * ": only the issuer has the private keys for MEDMITRA_JWKS_URL"
        )
    now = int(time.time())
    claims = {"sub": user_id, "aud": settings.jwt_audience, "iat": now, "exp": now + 60 * minutes}
    if settings.jwt_issuer is not None:
        claims["iss"] = settings.jwt_issuer
    return jwt.encode(claims, _shared_key(settings.jwt_secret))


def _bearer_token(authorization: str | None) -> str:
    """Take the token out of ``Bearer <token>`` (RFC 6750, 2.1); the scheme in any case (RFC 9110, 11.1)."""
    scheme, _, rest = (authorization or "").strip(" \t").partition(" ")
    token = rest.lstrip(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenMissing
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenInvalid(f"the token is longer than {MAX_TOKEN_BYTES:,} bytes")
    return token


def _shared_key(secret: str) -> jwt.PyJWK:
    octets = base64.urlsafe_b64encode(secret.encode("utf-8", "surrogateescape")).decode("ascii")
    return jwt.PyJWK({"kty": "oct", "k": octets}, "HS256")


def _issuer_keys(client: JwksClient, header: dict[str, Any]) -> Sequence[jwt.PyJWK]:
    key_id = header.get("kid")
    keys = client.find(key_id, header.get("alg")) if key_id else ()
    if not keys:
        raise TokenInvalid(_UNKNOWN_KEY)
    return keys
