"""What each setting's value must be like. No message repeats a value: it may be a secret."""

import ipaddress
import re
from urllib.parse import urlsplit

import jwt
import psycopg2
from marshmallow import ValidationError
from psycopg2.extensions import parse_dsn

_LISTEN = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+):(\d{1,5})\Z", re.ASCII | re.IGNORECASE)

# Browsers write an origin (RFC 6454, 6.2) in lower case, and leave out a port that is the scheme's own.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?\Z", re.ASCII)
_OWN_PORT = re.compile(r"http:.*:80\Z|https:.*:443\Z")

# RFC 7518, 3.2: a key for HS256 must be at least as long as the hash.
MIN_SECRET_BYTES = 32


def must_be_database_url(value: str) -> None:
    """Check what libpq is to connect to.

    Args:
        value: A setting's value.

    Raises:
        ValidationError: It is neither a libpq URI nor a ``key=value`` string.
    """
    try:
        parts = parse_dsn(value)
    except (psycopg2.ProgrammingError, UnicodeError):
        # Not chained: libpq quotes the part it could not read.
        raise ValidationError("is neither a libpq URI nor a key=value string") from None
    # The rest of an unescaped password spills into these, and libpq would name them in its errors.
    spilled = (
        "@" in parts.get("host", "") + parts.get("dbname", "")
        or not parts.get("port", "0").replace(",", "").isdigit()
    )
    if "://" in value and spilled:
        raise ValidationError("is a URI that cannot be split (in a password, write @ : / as %40 %3A %2F)")


def must_be_listen_address(value: str) -> None:
    """Check where to listen.

    Args:
        value: A setting's value.

    Raises:
        ValidationError: It is not ``HOST:PORT``.
    """
    address = _LISTEN.match(value)
    if address is None or int(address[2]) > 65535:
        raise ValidationError("must be HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000")


def must_be_secret(value: str) -> None:
    """Check a secret that tokens are signed with.

    Args:
        value: A setting's value.

    Raises:
        ValidationError: It is too short, or a key that its owner publishes.
    """
    octets = value.encode("utf-8", "surrogateescape")
    if len(octets) < MIN_SECRET_BYTES:
        raise ValidationError(f"must be at least {MIN_SECRET_BYTES} bytes long")
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(octets)
    except jwt.InvalidKeyError:
        raise ValidationError("is a public key or a certificate, not a secret") from None


def must_be_trustworthy_url(value: str) -> None:
    """Check where keys are fetched from.

    Args:
        value: A setting's value.

    Raises:
        ValidationError: On the way from there somebody could put keys of their own in.
    """
    mistake = "must be an https:// URL (http:// only for a loopback address)"
    try:
        url = urlsplit(value)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise ValidationError(mistake) from None
    guarded = url.scheme == "https" or (url.scheme == "http" and is_loopback(host))
    # Every character printable ASCII, as a request line has it; and no password, which would be logged.
    if not guarded or not host or port == 0 or "@" in url.netloc or not re.fullmatch("[!-~]+", value):
        raise ValidationError(mistake)


def must_be_origin(value: str) -> None:
    """Check whose pages may read answers.

    Args:
        value: One of a setting's values.

    Raises:
        ValidationError: It is not an origin as browsers write it.
    """
    if not _ORIGIN.match(value) or _OWN_PORT.match(value):
        raise ValidationError(
            "must be origins as browsers write them, with commas in between,"
            " such as https://app.example,http://localhost:3000"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can be at the other end of a connection to or at this address.

    Args:
        host: An IP address, or ``localhost``.

    Returns:
        Whether it is so; False for other names.
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
