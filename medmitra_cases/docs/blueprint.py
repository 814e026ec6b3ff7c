"""The service documents itself: ``/`` leads on, ``/openapi.json`` is for programs, ``/docs`` for people."""

from importlib.resources import files
from pathlib import Path

import msgspec
from flask import Blueprint, Response, abort, request
from marshmallow import Schema, fields

from medmitra_cases.contract import PATH, __version__
from medmitra_cases.docs.openapi import openapi

# What the page may do: show what comes from here, and send requests here.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HTML = "text/html"
_JSON = "application/json"

_PAGE_FOLDER = Path(__file__).with_name("page")
_SWAGGER_UI = Path(str(files("flask_swagger_ui"))) / "dist"

# All that there is below /docs, and what it is: of Swagger UI's files those that the page needs.
_ASSETS = {
    "docs.css": (_PAGE_FOLDER, "text/css"),
    "docs.js": (_PAGE_FOLDER, "text/javascript"),
    "favicon-32x32.png": (_SWAGGER_UI, "image/png"),
    "swagger-ui.css": (_SWAGGER_UI, "text/css"),
    "swagger-ui-bundle.js": (_SWAGGER_UI, "text/javascript"),
}


class LinksSchema(Schema):
    """Where things are, seen from the service's root."""

    cases = fields.String(required=True)
    docs = fields.String(required=True)
    openapi = fields.String(required=True)


class ServiceSchema(Schema):
    """Which service this is."""

    name = fields.String(required=True)
    version = fields.String(required=True)
    links = fields.Nested(LinksSchema, required=True)


def create_blueprint(*, needs_tokens: bool) -> Blueprint:
    """Make the blueprint that documents the service. It asks for no token, and the database nothing.

    Links are relative: the service does not know below which path a proxy shows it.

    Args:
        needs_tokens: Whether requests for cases need a token.

    Returns:
        The blueprint, to be registered at the root.
    """
    blueprint = Blueprint("docs", __name__)
    links = {"cases": PATH[1:], "docs": "docs", "openapi": "openapi.json"}
    service = msgspec.json.encode(
        ServiceSchema().dump({"name": "medmitra-cases", "version": __version__, "links": links})
    )
    document = msgspec.json.encode(openapi(needs_tokens=needs_tokens))

    @blueprint.get("/")
    def root() -> Response:
        """Send a person to the page, and tell a program where things are."""
        if request.accept_mimetypes.best_match((_JSON, _HTML)) == _HTML:
            response = Response(status=302, headers={"Location": links["docs"]})
        else:
            response = _current(service, _JSON)
        response.vary.add("Accept")
        return response

    @blueprint.get("/openapi.json")
    def openapi_json() -> Response:
        """Describe the service."""
        return _current(document, _JSON)

    @blueprint.get("/docs")
    def page() -> Response:
        """Show the description, and let people try it out."""
        response = _current((_PAGE_FOLDER / "index.html").read_bytes(), _HTML)
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    @blueprint.get("/docs/")
    def page_with_slash() -> Response:
        """Send a person to the page, from below which its links would lead elsewhere."""
        return Response(status=308, headers={"Location": "../docs"})

    @blueprint.get("/docs/<name>")
    def asset(name: str) -> Response:
        """Give what the page is made of."""
        if name not in _ASSETS:
            abort(404)
        folder, kind = _ASSETS[name]
        return _current((folder / name).read_bytes(), kind)

    return blueprint


def _current(body: bytes, kind: str) -> Response:
    """Answer with what a client may keep, but must ask for again: after an update it gets nothing old."""
    response = Response(body, mimetype=kind)
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response
