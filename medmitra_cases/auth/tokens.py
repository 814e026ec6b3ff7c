"""Bearer tokens: JSON Web Tokens (RFC 7519) whose subject is the doctor who asks."""

import base64
import time
from collections.abc import Callable

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
_UNKNOWN_KEY = "the token is signed with a key (kid) that its issuer does not have"
_NOT_A_UUID = "the token's subject (sub) is not a UUID"
_REASONS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "the token has expired (exp)",
    jwt.ImmatureSignatureError: "the token is not valid yet (nbf, iat)",
    jwt.InvalidAlgorithmError: "the token is signed with another algorithm (alg) than its key is for",
    jwt.InvalidAudienceError: "the token is for another audience (aud)",
    jwt.InvalidIssuerError: "the token is from another issuer (iss)",
    jwt.InvalidSignatureError: "the token's signature does not match",
    jwt.exceptions.InvalidSubjectError: _NOT_A_UUID,
}


class Verifier:
    """Verifies the token of a request, and returns the doctor it was issued to."""

    def __init__(self, find_key: Callable[[str], jwt.PyJWK], *, audience: str, issuer: str | None) -> None:
        """Keep the keys and the required claims.

        Args:
            find_key: Returns the key for a token, bound to its one algorithm. Raises TokenInvalid,
                KeysUnavailable or an error of PyJWT if there is none.
            audience: The value that ``aud`` must be or contain.
            issuer: The value that ``iss`` must be; None if any issuer is accepted.
        """
        self._find_key = find_key
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
            claims = jwt.decode(
                token,
                self._find_key(token),
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": self._required},
            )
        except jwt.MissingRequiredClaimError as error:
            raise TokenInvalid(f"the token lacks a claim ({error.claim})") from None
        except jwt.PyJWTError as error:
            raise TokenInvalid(_REASONS.get(type(error), _MALFORMED)) from None
        subject = canonical_uuid(claims["sub"])
        if subject is None:
            raise TokenInvalid(_NOT_A_UUID)
        return subject


def create_verifier(settings: Settings) -> Verifier | None:
    """Make the verifier for the settings.

    Args:
        settings: ``jwt_…`` and ``jwks_url`` are used.

    Returns:
        The verifier; None if the settings have no keys, so that no tokens are required.
    """
    if settings.jwt_secret is not None:
        secret = _shared_key(settings.jwt_secret)
        return Verifier(lambda _: secret, audience=settings.jwt_audience, issuer=settings.jwt_issuer)
    if settings.jwks_url is not None:
        keys = JwksClient(settings.jwks_url)
        return Verifier(
            lambda token: _named_key(keys, token), audience=settings.jwt_audience, issuer=settings.jwt_issuer
        )
    return None


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


def _named_key(keys: JwksClient, token: str) -> jwt.PyJWK:
    key_id = jwt.get_unverified_header(token).get("kid")
    key = keys.find(key_id) if key_id else None
    if key is None:
        raise TokenInvalid(_UNKNOWN_KEY)
    return key
