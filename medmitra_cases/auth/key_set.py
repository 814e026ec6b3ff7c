"""Fetches a JWK set (RFC 7517, 5) from its URL, and selects the keys that can verify tokens."""

import io
import json
import socket
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

# Bytes; a key of Supabase has some 300.
MAX_KEY_SET_BYTES = 1 << 20

# RFC 7518, 3.3.
MIN_RSA_BITS = 2_048


class KeySet(NamedTuple):
    """The keys of an issuer.

    Attributes:
        keys: The keys for ES256 and RS256 that have an id. Several can have the same.
        unusable: The number of other members of the set.
    """

    keys: list[jwt.PyJWK]
    unusable: int


def fetch_keys(url: str, *, silence_seconds: float, total_seconds: float) -> KeySet:
    """Fetch the keys.

    Args:
        url: The URL of the JWK set: https, or http on a loopback address.
        silence_seconds: Seconds that the key server may take to accept a connection, and between two bytes.
        total_seconds: Seconds for the response as a whole, also of a server that sends a byte now and then.

    Returns:
        The keys.

    Raises:
        Exception: The URL cannot be read in time, or returns no JWK set. Any type.
    """
    # Plain HTTP is allowed for loopback addresses only, so it bypasses the proxy of the environment.
    proxies = ProxyHandler({}) if urlsplit(url).scheme == "http" else ProxyHandler()
    opener = build_opener(proxies, _NoRedirects, _UntilDeadline(time.monotonic() + total_seconds))
    # Some firewalls refuse the default User-Agent of urllib.
    headers = {"Accept": "application/json", "User-Agent": "medmitra-cases"}
    request = Request(url, headers=headers)  # noqa: S310, the setting is https or a loopback address
    with opener.open(request, timeout=silence_seconds) as response:
        members = json.loads(response.read(MAX_KEY_SET_BYTES))["keys"]
    keys = [key for member in members if (key := _usable_key(member)) is not None]
    return KeySet(keys, unusable=len(members) - len(keys))


class _NoRedirects(HTTPRedirectHandler):
    """Makes a redirect an error: only the setting says where keys come from."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _UntilDeadline(HTTPSHandler, HTTPHandler):
    """Opens connections whose responses must be complete at a time of the monotonic clock."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(partial(self._connection, HTTPConnection), request)

    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(partial(self._connection, HTTPSConnection), request)

    def _connection(self, kind: Callable[..., HTTPConnection], *args: Any, **kwargs: Any) -> HTTPConnection:
        connection = kind(*args, **kwargs)
        connection.response_class = partial(_Response, self._deadline)  # type: ignore[assignment]
        return connection


class _Response(HTTPResponse):
    """A response, also of a proxy to CONNECT, that is read until a deadline."""

    def __init__(self, deadline: float, connection: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(connection, *args, **kwargs)
        self.fp = io.BufferedReader(_Reader(deadline, connection, self.fp))


class _Reader(io.RawIOBase):
    """Reads from a socket's file; each wait ends at the deadline, or sooner by the timeout of the socket."""

    def __init__(self, deadline: float, connection: socket.socket, file: io.BufferedReader) -> None:
        self._deadline = deadline
        self._connection = connection
        self._silence_seconds = connection.gettimeout() or 0
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the response was not complete in time")
        self._connection.settimeout(min(seconds, self._silence_seconds))
        return self._file.readinto1(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


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
