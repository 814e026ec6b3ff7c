"""Checks what the service connects to: the issuer's keys, and the link to the database."""

import os
import socket
from collections import Counter

import psycopg2
from psycopg2.extensions import connection as Connection

from medmitra_cases.auth import download_keys
from medmitra_cases.checks.finding import Finding, Verdict
from medmitra_cases.errors import printable
from medmitra_cases.settings import is_loopback


def check_keys(url: str) -> Finding:
    """Fetch the issuer's keys, and count those that can verify tokens.

    Args:
        url: The URL of the JWK set.

    Returns:
        The finding.
    """
    try:
        keys, unusable = download_keys(url)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Finding(
            Verdict.MISSING,
            f"no keys from MEDMITRA_JWKS_URL: {printable(reason)}",
            "compare the setting with the issuer's jwks_uri, and test it from this machine with curl",
        )
    counts = Counter(str(key.algorithm_name) for key in keys)
    kinds = [f"{counts[algorithm]} for {algorithm}" for algorithm in ("ES256", "RS256")]
    ignored = f"; {unusable} more cannot be used" if unusable else ""
    return Finding(
        Verdict.GOOD if keys else Verdict.MISSING,
        f"the signing keys of MEDMITRA_JWKS_URL: {', '.join(kinds)}{ignored}",
        "let the issuer sign with ES256, or with RS256 and at least 2,048 bits; each key needs an id (kid)",
    )


def check_certificate(error: psycopg2.Error) -> Finding | None:
    """Explain a failed connection whose cause is the certificate of the server's authority.

    Args:
        error: The error of the connection.

    Returns:
        The finding; None if the error has another cause.
    """
    causes = ("certificate verify failed", "root certificate file")
    # One line for each server. Another line would recommend sslrootcert=system.
    reasons = [line for line in str(error).splitlines() if any(cause in line for cause in causes)]
    if not reasons:
        return None
    return Finding(
        Verdict.MISSING,
        f"the database cannot be verified: {printable(reasons[0])}",
        "set sslrootcert=FILE in DATABASE_URL; FILE has the certificate of the authority that signs for the"
        " database. sslrootcert=system does not work with the wheel psycopg2-binary: its OpenSSL looks for"
        " certificates in a folder that does not exist",
    )


def check_link(connection: Connection) -> Finding:
    """Check whether others can read what goes to the database and comes from it, or can pose as it.

    Args:
        connection: A connection with the settings of the service.

    Returns:
        The finding.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as link:
        host = "" if link.family == socket.AF_UNIX else link.getpeername()[0]
    info = connection.info
    mode = info.dsn_parameters.get("sslmode", "disable")
    is_verified = info.ssl_in_use and mode == "verify-full"
    if not host:
        state = "is a Unix socket, which does not leave this machine"
    elif is_verified:
        state = f"is encrypted ({info.ssl_attribute('protocol')}), and the server's name is verified"
    elif is_loopback(host):
        state = f"does not leave this machine ({host})"
    elif info.ssl_in_use:
        state = (
            f"is encrypted ({info.ssl_attribute('protocol')}), but the server's name is not verified"
            f" (sslmode={mode}): another machine could pose as the database"
        )
    else:
        state = f"is not encrypted (sslmode={mode}): others could read the cases on the way"
    is_safe = not host or is_verified or is_loopback(host)
    return Finding(
        Verdict.GOOD if is_safe else Verdict.ADVICE,
        f"the link to the database {state}",
        "add sslmode=verify-full and sslrootcert=FILE to DATABASE_URL; FILE has the authority's certificate",
    )
