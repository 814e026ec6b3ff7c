"""Runs the service in this process, from its sockets to its end."""

import logging
import os
from collections.abc import Callable, Sequence

from medmitra_cases.app import DATABASE, create_app
from medmitra_cases.errors import ListenError
from medmitra_cases.listening import bound_sockets, inherited_sockets, only_local
from medmitra_cases.server import Server
from medmitra_cases.settings import Settings


def serve(settings: Settings, announce: Callable[[Sequence[str]], None]) -> None:
    """Answer requests until a signal ends it; then close the connections to the database.

    Args:
        settings: The settings.
        announce: Called once requests are accepted, with the addresses where.

    Raises:
        ListenError: There is nowhere to listen, or strangers could read there.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sockets = inherited_sockets(os.environ) or bound_sockets(settings.listen, reuse_port=settings.reuse_port)
    if not (settings.needs_tokens or settings.trust_user_id or only_local(sockets)):
        raise ListenError(
            "other machines could connect, and read any doctor's cases: set MEDMITRA_JWT_SECRET or"
            " MEDMITRA_JWKS_URL, or MEDMITRA_TRUST_USER_ID=1 if what is in front has checked user_id"
        )
    app = create_app(settings)
    try:
        server = Server(app, settings, sockets)
        announce(server.urls)
        server.run()
    finally:
        app.extensions[DATABASE].close()
