"""The keys that tokens are verified with, fetched from the URL where their issuer publishes them."""

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

_log = logging.getLogger(__name__)

# Seconds that the key server may stay silent, and that a request waits for it.
FETCH_SECONDS = 2.0
# Seconds after which keys are fetched anew, so that one taken back stops being good.
REFRESH_SECONDS = 600.0
# Seconds from one fetch to the next at the least, however many key ids are asked for that nobody has.
REFETCH_SECONDS = 5.0
# Seconds that keys stay good while no newer ones can be had: one day.
STALE_SECONDS = 86_400.0

# Bytes; the keys of Supabase have some 300 each.
MAX_KEY_SET_BYTES = 1 << 20

# RFC 7518, 3.3.
MIN_RSA_BITS = 2_048


class JwksClient:
    """The keys of a JWK set (RFC 7517, 5) that are for ES256 or RS256, by their ids.

    A thread of its own fetches them, so that neither a slow key server nor a slow name server holds a request
    for longer than ``FETCH_SECONDS``.
    """

    def __init__(self, url: str) -> None:
        """Remember where the keys are; nothing is fetched before one is needed.

        Args:
            url: Where the JWK set is.
        """
        self._url = url
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = self._begun_at = float("-inf")  # in seconds of the monotonic clock
        self._reached = False  # by the fetch that ended last
        self._begin_lock = threading.Lock()
        self._ended = threading.Event()
        self._ended.set()

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """Look a key up.

        Args:
            key_id: Its id.

        Returns:
            The key, which is bound to one algorithm; None if the issuer has none of that id.

        Raises:
            KeysUnavailable: Whether the issuer has one cannot be found out.
        """
        key = self._known(key_id, REFRESH_SECONDS)
        if key is None:
            self._fetch_if_due()
            key = self._known(key_id, STALE_SECONDS)
            # One that is not fresh may have been taken back. An outage that is known of is not waited out.
            if key is None or self._reached:
                self._ended.wait(self._begun_at + FETCH_SECONDS - time.monotonic())
                key = self._known(key_id, STALE_SECONDS)
        if key is None and not (self._reached and self._ended.is_set()):
            raise KeysUnavailable
        return key

    def _known(self, key_id: str, seconds: float) -> jwt.PyJWK | None:
        return self._keys.get(key_id) if time.monotonic() - self._fetched_at < seconds else None

    def _fetch_if_due(self) -> None:
        with self._begin_lock:
            now = time.monotonic()
            if self._ended.is_set() and now - self._begun_at >= REFETCH_SECONDS:
                self._begun_at = now
                self._ended.clear()
                try:
                    threading.Thread(target=self._fetch, name="signing-keys", daemon=True).start()
                except RuntimeError:  # too many threads, at the moment
                    self._ended.set()
                    raise

    def _fetch(self) -> None:
        try:
            self._keys = _fetched(self._url)
            self._fetched_at = time.monotonic()
            self._reached = True
        except Exception as error:  # whatever it is, the keys that there are stay good
            self._reached = False
            _log.warning("no keys from MEDMITRA_JWKS_URL: %s", error)
        finally:
            self._ended.set()


class _NoRedirects(HTTPRedirectHandler):
    """Lets an answer that points elsewhere be an error: the setting says where keys come from."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fetched(url: str) -> dict[str, jwt.PyJWK]:
    # Plain HTTP is for this machine's own addresses, so no proxy that the environment names is asked.
    proxies = ProxyHandler({}) if url.startswith("http:") else ProxyHandler()
    # Some firewalls refuse what urllib calls itself.
    headers = {"Accept": "application/json", "User-Agent": "medmitra-cases"}
    request = Request(url, headers=headers)  # noqa: S310, the setting is held to https or a loopback address
    with build_opener(proxies, _NoRedirects).open(request, timeout=FETCH_SECONDS) as response:
        published = json.loads(response.read(MAX_KEY_SET_BYTES))["keys"]
    keys = {member["kid"]: key for member in published if (key := _usable(member)) is not None}
    if not keys:
        _log.warning("MEDMITRA_JWKS_URL has no key for ES256 or RS256, so no token holds")
    return keys


def _usable(member: Any) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(member)
    except Exception:  # RFC 7517, 5: what is not understood is ignored
        return None
    of_its_kind = (
        key.algorithm_name == "ES256"
        and isinstance(key.key, EllipticCurvePublicKey)
        and isinstance(key.key.curve, SECP256R1)
    ) or (
        key.algorithm_name == "RS256"
        and isinstance(key.key, RSAPublicKey)
        and key.key.key_size >= MIN_RSA_BITS
    )
    named = isinstance(key.key_id, str) and key.key_id != ""
    return key if of_its_kind and named and key.public_key_use in (None, "sig") else None
