"""The line that a started service prints: addresses, requests at a time, database, and who may read."""

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from psycopg2.extensions import parse_dsn

from medmitra_cases.errors import printable
from medmitra_cases.settings import Settings

# The libpq parameters that name the database, and the variables that libpq reads if DATABASE_URL omits them.
_LIBPQ_VARIABLES = {
    "service": "PGSERVICE",
    "hostaddr": "PGHOSTADDR",
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
}


def start_line(settings: Settings, urls: Sequence[str]) -> str:
    """Write the line. It names the database, but no user or password of ``DATABASE_URL``.

    Args:
        settings: The settings.
        urls: The addresses that accept requests.

    Returns:
        One line. Programs can parse the first address: it follows ``Serving cases on``, between spaces.
    """
    requests = "1 request" if settings.threads == 1 else f"{settings.threads} requests"
    return (
        f"Serving cases on {' and '.join(urls)} with {requests} at a time,"
        f" from {_database_name(settings.database_url)}, to {_permitted_clients(settings)}"
    )


def _database_name(url: str) -> str:
    """Name the database that libpq connects to. libpq's variables fill in what the URL omits."""
    parts = {key: os.environ.get(name, "") for key, name in _LIBPQ_VARIABLES.items()} | parse_dsn(url)
    if parts["service"]:
        return f"the database of the service {_without_login(parts['service'])}"
    hosts = (parts["hostaddr"] or parts["host"]).split(",")
    ports = parts["port"].split(",")
    if len(ports) == 1:  # one port is for all hosts
        ports *= len(hosts)
    name = _without_login(parts["dbname"] or "the default database")
    return f"{name} at {', '.join(map(_address, hosts, ports))}"


def _without_login(name: str) -> str:
    """Replace unprintable characters, and remove the part before an ``@``: it may be a password."""
    host = name if name.startswith("@") else name.rpartition("@")[2]
    return printable(host)


def _address(host: str, port: str) -> str:
    host, port = _without_login(host), _without_login(port or "5432")
    if not host or host.startswith(("/", "@")):
        return f"{host}/.s.PGSQL.{port}" if host else f"the local socket .s.PGSQL.{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _permitted_clients(settings: Settings) -> str:
    keys = []
    if settings.jwt_secret is not None:
        keys.append("HS256" if settings.jwt_secret_previous is None else "HS256 with two secrets")
    if settings.jwks_url is not None:
        keys.append(f"keys of {_without_login(urlsplit(settings.jwks_url).netloc)}")
    if keys:
        return f"each doctor by token ({', '.join(keys)})"
    if settings.trust_user_id:
        return "any client that the reverse proxy forwards"
    return "any client on this machine that sends a user_id"
