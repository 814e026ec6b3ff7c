"""The parameters of libpq: those that are configured, and our defaults for the others."""

import os
import socket
import threading
from contextlib import closing

import psycopg2
from psycopg2.extensions import parse_dsn

from medmitra_cases.errors import SettingsError

# Our parameters of libpq, unless the URL, a service file or the environment has others. Without them a dead
# link blocks a read for minutes.
CONNECTION_DEFAULTS = {
    "connect_timeout": "2",  # seconds, for each address in turn; 2 is the minimum of libpq
    "keepalives_idle": "5",  # seconds without data before the first probe
    "keepalives_interval": "2",  # seconds between probes
    "keepalives_count": "2",  # unanswered probes until the connection counts as lost
    "tcp_user_timeout": "3000",  # milliseconds until the other side must acknowledge sent data
    "fallback_application_name": "medmitra-cases",
}


def configured_parameters(url: str) -> dict[str, str]:
    """List the parameters that libpq takes from a URL, from a service file and from the environment.

    Only libpq knows its service files. It lists the parameters of a connection that has only begun, here to a
    socket of this process, on which nothing is sent.

    Args:
        url: A libpq URI or a ``key=value`` string.

    Returns:
        The values by their names, without host and port; no values if libpq refuses the parameters.
    """
    folder = f"medmitra-cases-{os.getpid()}-{threading.get_ident()}"
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"\0{folder}/.s.PGSQL.1")  # an abstract name, which needs no file
            listening.listen()
            own_socket = {"host": f"@{folder}", "hostaddr": "", "port": "1", "async_": True}
            with closing(psycopg2.connect(**{**parse_dsn(url), **own_socket})) as connection:
                parameters: dict[str, str] = connection.info.dsn_parameters
    except (psycopg2.Error, OSError):
        return {}
    return {name: value for name, value in parameters.items() if name not in own_socket}


def connection_parameters(url: str) -> dict[str, str]:
    """Complete a URL with our defaults.

    Args:
        url: A libpq URI or a ``key=value`` string.

    Returns:
        The parameters for ``psycopg2.connect``.

    Raises:
        psycopg2.ProgrammingError: The URL cannot be parsed.
    """
    configured = configured_parameters(url)
    defaults = {name: value for name, value in CONNECTION_DEFAULTS.items() if name not in configured}
    # The URL cannot change client_encoding, because text must arrive as Unicode with every server encoding.
    return {**defaults, **parse_dsn(url), "client_encoding": "UTF8"}


def refuse_read_write(url: str) -> None:
    """Refuse parameters with which the service can never connect, because its sessions are read-only.

    Args:
        url: A libpq URI or a ``key=value`` string.

    Raises:
        SettingsError: ``target_session_attrs`` is ``read-write``: in the URL, a service file, or a variable.
    """
    if configured_parameters(url).get("target_session_attrs") == "read-write":
        raise SettingsError(
            "target_session_attrs (in DATABASE_URL, PGTARGETSESSIONATTRS or a service file) is read-write,"
            " but the service's role cannot write: use primary or prefer-standby"
        )
