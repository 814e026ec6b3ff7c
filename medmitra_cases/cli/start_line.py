"""The line that says, once requests are answered, where, how, from which database and to whom."""

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from psycopg2.extensions import parse_dsn

from medmitra_cases.settings import Settings

# libpq's parameters that say which database it is, and the variables that hold where DATABASE_URL has none.
_VARIABLES = {
    "service": "PGSERVICE",
    "hostaddr": "PGHOSTADDR",
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
}


def start_line(settings: Settings, urls: Sequence[str]) -> str:
    """Write the line. Of the database it has what names it, and no other part of ``DATABASE_URL``.

    Args:
        settings: The settings.
        urls: The addresses where requests are answered.

    Returns:
        One line. After ``Serving cases on`` the first address stands between spaces, for programs to find.
    """
    threads = "1 thread" if settings.threads == 1 else f"{settings.threads} threads"
    return (
        f"Serving cases on {' and '.join(urls)} with {threads},"
        f" from {_database(settings.database_url)}, to {_readers(settings)}"
    )


def _database(url: str) -> str:
    """Name the database that libpq will find: what the URL leaves open, libpq's own variables say."""
    parts = {key: os.environ.get(variable, "") for key, variable in _VARIABLES.items()} | parse_dsn(url)
    if parts["service"]:
        return f"the database of the service {_without_login(parts['service'])}"
    hosts = (parts["hostaddr"] or parts["host"]).split(",")
    ports = parts["port"].split(",")
    if len(ports) == 1:  # it holds for all of them
        ports *= len(hosts)
    name = _without_login(parts["dbname"] or "the default database")
    return f"{name} at {', '.join(map(_address, hosts, ports))}"


def _without_login(name: str) -> str:
    """Leave out what is not printable, and what stands before an ``@``: it may be a password."""
    host = name if name.startswith("@") else name.rpartition("@")[2]
    return "".join(character if character.isprintable() else "?" for character in host)


def _address(host: str, port: str) -> str:
    host, port = _without_login(host), _without_login(port or "5432")
    if not host or host.startswith(("/", "@")):
        return f"{host}/.s.PGSQL.{port}" if host else f"the local socket .s.PGSQL.{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _readers(settings: Settings) -> str:
    if settings.jwt_secret is not None:
        return "each doctor by token (HS256)"
    if settings.jwks_url is not None:
        return f"each doctor by token (keys of {_without_login(urlsplit(settings.jwks_url).netloc)})"
    if settings.trust_user_id:
        return "whomever the proxy in front lets through"
    return "anyone on this machine who names a user_id"
