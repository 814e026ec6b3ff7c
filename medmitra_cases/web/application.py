"""The Flask class of the service's applications."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Request
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter

from medmitra_cases.telemetry import request_id, reset_if_forked
from medmitra_cases.web.headers import adding_headers

# The key in the WSGI environment of the time when the request arrived, in seconds of the monotonic clock.
RECEIVED_AT = "medmitra_cases.received_at"


class _NoSessions(SessionInterface):
    """Sessions are not used, so no cookie is parsed."""

    def open_session(self, _app: Flask, _request: Request) -> NullSession:
        return _NO_SESSION


_NO_SESSION = NullSession()

# The end that proxies add to the tag of a response which they compress (Apache -gzip, -br and -zstd, Jetty
# --gzip), and that clients then send back. Our tags are hexadecimal, so they never end with one of these.
_SUFFIX = re.compile(r"--?(?:gzip|deflate|br|zstd)(?=\")")


class Application(Flask):
    """Flask with a request id for every request, and without sessions and host matching, which cost time."""

    session_interface = _NoSessions()
    on_origin: Callable[[str], None] | None = None  # called with the ``Origin`` of each request that has one

    def wsgi_app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Give the request its id and the tags that this service has sent, then handle it."""
        reset_if_forked()
        request_id.start(environ.get("HTTP_X_REQUEST_ID", ""))
        if "HTTP_IF_NONE_MATCH" in environ:
            environ["HTTP_IF_NONE_MATCH"] = _SUFFIX.sub("", environ["HTTP_IF_NONE_MATCH"])
        if "HTTP_ORIGIN" in environ and self.on_origin is not None:
            self.on_origin(environ["HTTP_ORIGIN"])
        return super().wsgi_app(environ, adding_headers(start_response))

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Match by path and method, not by host: to read the host takes longer than the routing."""
        if request is None:
            return None
        return self.url_map.bind("", path_info=request.path, default_method=request.method)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none is a coroutine, and Flask tests that at each call."""
        return func
