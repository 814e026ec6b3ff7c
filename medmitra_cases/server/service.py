"""Runs the service in this process, from its sockets to its end."""

import ctypes
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import closing

from medmitra_cases.admin import Readiness, create_admin_app
from medmitra_cases.app import create_app, create_database
from medmitra_cases.contract import PATH
from medmitra_cases.errors import ListenError
from medmitra_cases.server.listeners import WsgiApp
from medmitra_cases.server.server import Server
from medmitra_cases.server.sockets import bound_sockets, inherited_sockets, only_local
from medmitra_cases.settings import Settings, unknown_variables
from medmitra_cases.telemetry import logs, metrics

# mallopt(3). By default glibc may use eight arenas for each core, and none returns memory that another could
# use. One thread at a time runs Python, so two are enough: after mixed traffic 72 MB stay instead of 115.
M_ARENA_MAX = -8
ARENAS = 2

# The ends of the errors about addresses that cannot be listened on.
OTHER_ADDRESS = "set another address with --listen HOST:PORT or MEDMITRA_LISTEN; port 0 takes a free port"
OTHER_ADMIN_ADDRESS = "MEDMITRA_ADMIN_LISTEN: each process needs its own, or off"

_log = logging.getLogger(__name__)


def serve(
    settings: Settings,
    announce: Callable[[Sequence[str]], None],
    wrap: Callable[[WsgiApp], WsgiApp] = lambda app: app,
) -> None:
    """Serve until a signal ends it, then close the database connections.

    Args:
        settings: The settings.
        announce: Called once clients can connect, with the addresses: ``http://127.0.0.1:8000``.
        wrap: A function that returns the application to serve in place of the service's own, for tests.

    Raises:
        ListenError: No address can be listened on, or other machines could read without a token.
        SystemExit: With status 1, if requests were cut off.
    """
    _limit_arenas()
    logs.configure(settings.log_format)
    for description in unknown_variables(os.environ):
        _log.warning("%s", description)
    inherited = inherited_sockets(os.environ)
    sockets = inherited or _sockets(settings.listen, OTHER_ADDRESS, reuse_port=settings.reuse_port)
    if not (settings.needs_tokens or settings.trust_user_id or only_local(sockets)):
        raise ListenError(
            "other machines could connect, and read any doctor's cases: set MEDMITRA_JWT_SECRET or"
            " MEDMITRA_JWKS_URL, or MEDMITRA_TRUST_USER_ID=1 if the reverse proxy has checked user_id"
        )
    admin_listen = settings.admin_listen
    admin_sockets = _sockets(admin_listen, OTHER_ADMIN_ADDRESS, reuse_port=False) if admin_listen else []
    with closing(create_database(settings)) as database:
        app = create_app(settings, database=database)
        server = Server(wrap(app), settings, sockets, shared=bool(inherited), route_of=_route_of)
        metrics.REQUESTS_IN_FLIGHT.set_function(lambda: server.in_flight)
        if admin_sockets:
            readiness = Readiness(database, row_versions=settings.row_versions)
            admin_app = create_admin_app(readiness, lambda: server.draining)
            urls = server.listen_for_admin(admin_app, admin_sockets)
            _log.info("probes and metrics on %s", " and ".join(urls))
        server.run(announce)


def _sockets(listen: str, hint: str, *, reuse_port: bool) -> list[socket.socket]:
    """Bind and listen on an address; an error ends with the hint."""
    try:
        return bound_sockets(listen, reuse_port=reuse_port)
    except ListenError as error:
        raise ListenError(f"{error} ({hint})") from error


def _route_of(path: str) -> str:
    # Clients can invent paths, and each would be one more label. Waitress drops leading slashes, too.
    return PATH if path.lstrip("/") == PATH[1:] else "other"


def _limit_arenas() -> None:
    """Limit the arenas of glibc, before threads create more; other C libraries have none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
