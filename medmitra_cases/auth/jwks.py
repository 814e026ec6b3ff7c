"""The keys that verify tokens, fetched from the URL at which the issuer publishes them (JWKS)."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from medmitra_cases.errors import KeysUnavailable
from medmitra_cases.telemetry import call_after_fork

_log = logging.getLogger(__name__)

# Seconds that the key server may stay silent, and that a request waits for it.
FETCH_SECONDS = 2.0
# Seconds after which keys are fetched again, so that a revoked key stops being valid.
REFRESH_SECONDS = 600.0
# The minimum of seconds between two fetches, however many requests name unknown keys.
REFETCH_SECONDS = 5.0
# Seconds that keys stay valid while no newer ones can be fetched: one day.
STALE_SECONDS = 86_400.0

# Bytes; a key of Supabase has some 300.
MAX_KEY_SET_BYTES = 1 << 20

# RFC 7518, 3.3.
MIN_RSA_BITS = 2_048


class JwksClient:
    """The keys of a JWK set (RFC 7517, 5) for ES256 and RS256, by their ids.

    A separate thread fetches them, so that no slow key server or name server holds a request for longer than
    ``FETCH_SECONDS``.
    """

    def __init__(self, url: str) -> None:
        """Keep the URL; nothing is fetched before a key is needed.

        Args:
            url: The URL of the JWK set.
        """
        self._url = url
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")  # in seconds of the monotonic clock
        self._last_fetch_succeeded = False
        self._reset()
        call_after_fork(self._reset)

    def _reset(self) -> None:
        # The keys stay after a fork. A fetch that was running does not.
        self._started_at = float("-inf")
        self._start_lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """Look up a key.

        Args:
            key_id: Its id.

        Returns:
            The key, bound to one algorithm; None if the issuer has no key of that id.

        Raises:
            KeysUnavailable: The keys cannot be fetched, and the key is not known.
        """
        key = self._cached(key_id, REFRESH_SECONDS)
        if key is None:
            self._fetch_if_due()
            key = self._cached(key_id, STALE_SECONDS)
            # A stale key may have been revoked. During a known outage the request does not wait.
            if key is None or self._last_fetch_succeeded:
                self._idle.wait(self._started_at + FETCH_SECONDS - time.monotonic())
                key = self._cached(key_id, STALE_SECONDS)
        if key is None and not (self._last_fetch_succeeded and self._idle.is_set()):
            raise KeysUnavailable
        return key

    def _cached(self, key_id: str, max_age: float) -> jwt.PyJWK | None:
        return self._keys.get(key_id) if time.monotonic() - self._fetched_at < max_age else None

    def _fetch_if_due(self) -> None:
        with self._start_lock:
            now = time.monotonic()
            if self._idle.is_set() and now - self._started_at >= REFETCH_SECONDS:
                self._idle.clear()
                try:
                    threading.Thread(target=self._fetch, name="signing-keys", daemon=True).start()
                    self._started_at = now
                except RuntimeError as error:  # too many threads at the moment; the next request tries again
                    self._last_fetch_succeeded = False
                    self._idle.set()
                    _log.warning("no keys from MEDMITRA_JWKS_URL: %s", error)

    def _fetch(self) -> None:
        try:
            self._keys = _download(self._url)
            self._fetched_at = time.monotonic()
            self._last_fetch_succeeded = True
        except Exception as error:  # after any error the present keys stay valid
            self._last_fetch_succeeded = False
            _log.warning("no keys from MEDMITRA_JWKS_URL: %s", error)
        finally:
            self._idle.set()


class _NoRedirects(HTTPRedirectHandler):
    """Makes a redirect an error: only the setting says where keys come from."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _download(url: str) -> dict[str, jwt.PyJWK]:
    # Plain HTTP is allowed for loopback addresses only, so it bypasses the proxy of the environment.
    proxies = ProxyHandler({}) if url.startswith("http:") else ProxyHandler()
    # Some firewalls refuse the default User-Agent of urllib.
    headers = {"Accept": "application/json", "User-Agent": "medmitra-cases"}
    request = Request(url, headers=headers)  # noqa: S310, the setting is https or a loopback address
    with build_opener(proxies, _NoRedirects).open(request, timeout=FETCH_SECONDS) as response:
        members = json.loads(response.read(MAX_KEY_SET_BYTES))["keys"]
    keys = {member["kid"]: key for member in members if (key := _usable_key(member)) is not None}
    if not keys:
        _log.warning("MEDMITRA_JWKS_URL has no key for ES256 or RS256, so no token is valid")
    return keys


def _usable_key(member: Any) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(member)
    except Exception:  # RFC 7517, 5: a member that is not understood is ignored
        return None
    is_es256 = (
        key.algorithm_name == "ES256"
        and isinstance(key.key, EllipticCurvePublicKey)
        and isinstance(key.key.curve, SECP256R1)
    )
    is_rs256 = (
        key.algorithm_name == "RS256"
        and isinstance(key.key, RSAPublicKey)
        and key.key.key_size >= MIN_RSA_BITS
    )
    has_id = isinstance(key.key_id, str) and key.key_id != ""
    return key if (is_es256 or is_rs256) and has_id and key.public_key_use in (None, "sig") else None
