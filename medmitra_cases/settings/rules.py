"""Validation of setting values. No error message repeats a value, because it may be a secret."""

import ipaddress
import re
from urllib.parse import urlsplit

import jwt
import psycopg2
from marshmallow import ValidationError
from psycopg2.extensions import parse_dsn

_LISTEN = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+):(\d{1,5})\Z", re.ASCII | re.IGNORECASE)

# Browsers write an origin (RFC 6454, 6.2) in lower case, and omit the default port of the scheme.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?\Z", re.ASCII)
_DEFAULT_PORT = re.compile(r"http:.*:80\Z|https:.*:443\Z")

_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}\Z")

_BYTE_ORDER_MARK = "\ufeff"

# Parameters in the URLs that providers show for other drivers. Only these names are repeated: another name
# may be a part of a password.
_OF_OTHER_DRIVERS = {
    *("pgbouncer", "connection_limit", "pool_timeout", "socket_timeout", "schema", "sslaccept"),  # Prisma
    *("supa", "uselibpqcompat"),  # Vercel, node-postgres
    *("prepareThreshold", "currentSchema"),  # JDBC
    *("statement_cache_size", "prepared_statement_cache_size"),  # asyncpg, SQLAlchemy
}
_UNKNOWN_PARAMETER = re.compile(r'invalid (?:URI query parameter:|connection option) "(\w+)"')

# RFC 7518, 3.2: a key for HS256 must be at least as long as the hash.
MIN_SECRET_BYTES = 32


def must_be_bare(value: str) -> None:
    """Check that a value has nothing around it that a file format or a shell left there.

    Args:
        value: The value of a setting.

    Raises:
        ValidationError: The value is empty, or has blanks, line breaks or quotation marks around it.
    """
    if not value:
        raise ValidationError("is set but empty: remove the variable, or give it a value")
    if value != value.strip().strip(_BYTE_ORDER_MARK):
        raise ValidationError("begins or ends with a blank, a line break or a byte order mark")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'`":
        raise ValidationError("begins and ends with a quotation mark")


def must_be_database_url(value: str) -> None:
    """Check a database URL.

    Args:
        value: The value of a setting.

    Raises:
        ValidationError: The value is neither a libpq URI nor a ``key=value`` string.
    """
    must_be_bare(value)
    try:
        parts = parse_dsn(value)
    except (psycopg2.ProgrammingError, UnicodeError) as error:
        # Not chained, because libpq quotes the part that it could not parse.
        raise ValidationError(_why_not_a_url(str(error))) from None
    # An unescaped password ends up in these parts, and libpq would print them in its errors.
    unescaped = (
        "@" in parts.get("host", "") + parts.get("dbname", "")
        or not parts.get("port", "0").replace(",", "").isdigit()
    )
    if "://" in value and unescaped:
        raise ValidationError("is a URI that cannot be parsed (write @ : / in a password as %40 %3A %2F)")


def _why_not_a_url(error: str) -> str:
    unknown = _UNKNOWN_PARAMETER.search(error)
    if unknown is None:
        return "is neither a libpq URI nor a key=value string"
    if unknown[1] not in _OF_OTHER_DRIVERS:
        return "has a parameter that libpq does not know (write / and ? in a password as %2F and %3F)"
    return (
        f"has the parameter {unknown[1]}, which other drivers read and libpq does not know: remove it; the"
        " service needs no parameter for a connection pooler"
    )


def must_be_listen_address(value: str) -> None:
    """Check an address to listen on.

    Args:
        value: The value of a setting.

    Raises:
        ValidationError: The value is not ``HOST:PORT``.
    """
    address = _LISTEN.match(value)
    if address is None or int(address[2]) > 65535:
        raise ValidationError("must be HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000")


def must_be_secret(value: str) -> None:
    """Check a secret that signs tokens.

    Args:
        value: The value of a setting.

    Raises:
        ValidationError: The value is too short, or it is a public key.
    """
    must_be_bare(value)
    octets = value.encode("utf-8", "surrogateescape")
    if len(octets) < MIN_SECRET_BYTES:
        raise ValidationError(f"must be at least {MIN_SECRET_BYTES} bytes long")
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(octets)
    except jwt.InvalidKeyError:
        raise ValidationError("is a public key or a certificate, not a secret") from None


def must_be_key_url(value: str) -> None:
    """Check the URL of signing keys.

    Args:
        value: The value of a setting.

    Raises:
        ValidationError: The connection to the URL would not be protected against forged keys.
    """
    must_be_bare(value)
    mistake = "must be an https:// URL (http:// only for a loopback address)"
    try:
        url = urlsplit(value)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise ValidationError(mistake) from None
    protected = url.scheme == "https" or (url.scheme == "http" and is_loopback(host))
    # A request line is printable ASCII. A password in the URL would be logged.
    if not protected or not host or port == 0 or "@" in url.netloc or not re.fullmatch("[!-~]+", value):
        raise ValidationError(mistake)


def must_be_origin(value: str) -> None:
    """Check an origin whose pages can read responses.

    Args:
        value: One item of the setting.

    Raises:
        ValidationError: The value is not an origin as browsers write it.
    """
    if not _ORIGIN.match(value) or _DEFAULT_PORT.match(value):
        raise ValidationError(
            "must be a comma-separated list of origins as browsers write them,"
            " such as https://app.example,http://localhost:3000"
        )


def must_be_field_name(value: str) -> None:
    """Check the name of a header field (RFC 9110, 5.1).

    Args:
        value: One item of the setting.

    Raises:
        ValidationError: A header field cannot have this name, or ``*``, which browsers treat specially.
    """
    if not _FIELD_NAME.match(value) or value == "*":
        raise ValidationError(
            "must be a comma-separated list of header fields, such as traceparent,baggage,x-client-info"
        )


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable from this machine only.

    Args:
        host: An IP address, or ``localhost``.

    Returns:
        True for a loopback address. False for any other host name.
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
