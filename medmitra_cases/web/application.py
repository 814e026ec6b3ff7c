"""Flask, made to fit this service."""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Request
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter

from medmitra_cases.telemetry import request_id

# Where in the WSGI environment a server may say when the request came, in seconds of the monotonic clock.
ARRIVED_AT = "medmitra_cases.arrived_at"


class _NoSessions(SessionInterface):
    """There are no sessions, so none is looked for in a cookie."""

    def open_session(self, _app: Flask, _request: Request) -> NullSession:
        return _NO_SESSION


_NO_SESSION = NullSession()


class Application(Flask):
    """Flask that names each request; without sessions and the matching of hosts, which cost every one."""

    session_interface = _NoSessions()

    def wsgi_app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Name the request before anything else happens to it.

        Args:
            environ: As WSGI has it.
            start_response: As WSGI has it.

        Returns:
            The answer's body.
        """
        request_id.start(environ.get("HTTP_X_REQUEST_ID", ""))
        return super().wsgi_app(environ, start_response)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Let path and method alone decide, not the host: reading that takes longer than the routing."""
        if request is None:
            return None
        return self.url_map.bind("", path_info=request.path, default_method=request.method)
