"""The blueprint of ``/`` (links), ``/openapi.json`` (for programs) and ``/docs`` (for people)."""

from importlib.resources import files
from pathlib import Path

import msgspec
from flask import Blueprint, Response, abort, request

from medmitra_cases.contract import PATH, __version__
from medmitra_cases.docs.openapi import openapi
from medmitra_cases.web import headers

# The page may load files from this origin and send requests to it, nothing else.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HTML = "text/html"
_JSON = "application/json"

_PAGE_FOLDER = Path(__file__).with_name("page")
_SWAGGER_UI = Path(str(files("flask_swagger_ui"))) / "dist"

# Every file below /docs: its folder and media type. Only the files of Swagger UI that the page needs.
_ASSETS = {
    "accessibility.js": (_PAGE_FOLDER, "text/javascript"),
    "docs.css": (_PAGE_FOLDER, "text/css"),
    "docs.js": (_PAGE_FOLDER, "text/javascript"),
    "favicon-32x32.png": (_SWAGGER_UI, "image/png"),
    "swagger-ui.css": (_SWAGGER_UI, "text/css"),
    "swagger-ui-bundle.js": (_SWAGGER_UI, "text/javascript"),
}


def create_blueprint(*, needs_tokens: bool) -> Blueprint:
    """Create the blueprint. It needs no token and sends no query to the database.

    All links are relative, because a proxy may serve the service below a path prefix.

    Args:
        needs_tokens: Whether requests for cases need a token.

    Returns:
        The blueprint, to register at the root.
    """
    blueprint = Blueprint("docs", __name__)
    blueprint.before_request(headers.ignore_if_long("HTTP_ACCEPT", "HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"))
    links = {"cases": PATH[1:], "docs": "docs", "openapi": "openapi.json"}
    service = msgspec.json.encode({"name": "medmitra-cases", "version": __version__, "links": links})
    document = msgspec.json.encode(openapi(needs_tokens=needs_tokens))

    @blueprint.get("/")
    def root() -> Response:
        """Redirect a browser to ``/docs``, and send the links to a program."""
        if request.accept_mimetypes.best_match((_JSON, _HTML)) == _HTML:
            response = Response(status=302, headers={"Location": links["docs"]})
        else:
            response = _revalidated(service, _JSON)
        response.vary.add("Accept")
        return response

    @blueprint.get("/openapi.json")
    def openapi_json() -> Response:
        """Send the OpenAPI document."""
        return _revalidated(document, _JSON)

    @blueprint.get("/docs")
    def page() -> Response:
        """Send the page of Swagger UI."""
        response = _revalidated((_PAGE_FOLDER / "index.html").read_bytes(), _HTML)
        response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
        return response

    @blueprint.get("/docs/")
    def page_with_slash() -> Response:
        """Redirect to ``/docs``: below ``/docs/`` the relative links of the page would be wrong."""
        return Response(status=308, headers={"Location": "../docs"})

    @blueprint.get("/docs/<name>")
    def asset(name: str) -> Response:
        """Send a file of the page."""
        if name not in _ASSETS:
            abort(404)
        folder, mimetype = _ASSETS[name]
        return _revalidated((folder / name).read_bytes(), mimetype)

    return blueprint


def _revalidated(body: bytes, mimetype: str) -> Response:
    """Return a response that clients may cache but must revalidate, so that an update is visible at once."""
    response = Response(body, mimetype=mimetype)
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response
