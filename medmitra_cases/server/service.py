"""Runs the service in this process, from its sockets to its end."""

import logging
import os
import socket
from collections.abc import Callable, Sequence

from medmitra_cases.admin import Readiness, create_admin_app
from medmitra_cases.app import DATABASE, create_app
from medmitra_cases.errors import ListenError
from medmitra_cases.server.limits import limit_arenas
from medmitra_cases.server.server import Server
from medmitra_cases.server.sockets import bound_sockets, inherited_sockets, only_local
from medmitra_cases.settings import Settings
from medmitra_cases.telemetry import logs, metrics

_log = logging.getLogger(__name__)


def serve(settings: Settings, announce: Callable[[Sequence[str]], None]) -> None:
    """Answer requests until a signal ends it; then close the connections to the database.

    Args:
        settings: The settings.
        announce: Called once requests are answered, with the addresses where, such as ``http://127.0.0.1:8000``.

    Raises:
        ListenError: There is nowhere to listen, or strangers could read there.
        SystemExit: With status 1, if requests were cut off.
    """
    limit_arenas()
    logs.configure(settings.log_format)
    inherited = inherited_sockets(os.environ)
    sockets = inherited or bound_sockets(settings.listen, reuse_port=settings.reuse_port)
    if not (settings.needs_tokens or settings.trust_user_id or only_local(sockets)):
        raise ListenError(
            "other machines could connect, and read any doctor's cases: set MEDMITRA_JWT_SECRET or"
            " MEDMITRA_JWKS_URL, or MEDMITRA_TRUST_USER_ID=1 if what is in front has checked user_id"
        )
    admin_sockets = _admin_sockets(settings.admin_listen)
    app = create_app(settings)
    readiness = Readiness(settings.database_url, row_versions=settings.row_versions)
    try:
        server = Server(app, settings, sockets, shared=bool(inherited))
        metrics.REQUESTS_IN_FLIGHT.set_function(lambda: server.in_flight)
        if admin_sockets:
            urls = server.listen_for_admin(
                create_admin_app(readiness, lambda: server.draining), admin_sockets
            )
            _log.info("probes and metrics on %s", " and ".join(urls))
        server.run(announce)
    finally:
        app.extensions[DATABASE].close()
        readiness.close()


def _admin_sockets(listen: str | None) -> list[socket.socket]:
    if listen is None:
        return []
    try:
        return bound_sockets(listen, reuse_port=False)
    except ListenError as error:
        raise ListenError(f"{error} (MEDMITRA_ADMIN_LISTEN: each process needs its own, or off)") from error
