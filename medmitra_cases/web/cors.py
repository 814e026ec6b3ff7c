"""CORS: pages of other origins may read the responses (Fetch standard, "CORS protocol")."""

import logging
import re
from collections.abc import Sequence

from flask import Response
from flask_cors import CORS

from medmitra_cases.errors import printable
from medmitra_cases.web.application import Application
from medmitra_cases.web.headers import ignore_if_long

# The response header fields that a page may read.
EXPOSED_HEADERS = ("ETag", "Link", "Preference-Applied", "X-Request-ID", "X-Total-Count")

# The request header fields that a page may always send, and how long a browser may cache that answer.
ALLOWED_HEADERS = ("Authorization", "Content-Type", "If-None-Match", "Prefer")
MAX_AGE_SECONDS = 3_600

# The refused origins that the log names: not each one that a client can invent, and so many characters of it.
MAX_LOGGED_ORIGINS = 100
MAX_LOGGED_CHARACTERS = 100

_log = logging.getLogger(__name__)


def init_app(app: Application, origins: Sequence[str], headers: Sequence[str]) -> None:
    """Add the CORS header fields to all responses, errors included. Log each other origin once.

    Args:
        app: The application.
        origins: The allowed origins, as a browser writes them: ``https://app.example``. Without any, no field
            is added.
        headers: The request header fields that pages may send, in addition to ``ALLOWED_HEADERS``.
    """
    logged: set[str] = set()

    def log_refused(origin: str) -> None:
        if origin not in origins and origin not in logged and len(logged) < MAX_LOGGED_ORIGINS:
            logged.add(origin)
            name = printable(origin[:MAX_LOGGED_CHARACTERS])
            _log.info("pages of %s cannot read responses: it is not in MEDMITRA_CORS_ORIGINS", name)

    app.on_origin = log_refused
    if not origins:
        return
    app.before_request(ignore_if_long("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"))
    CORS(
        app,
        # As patterns: flask-cors guesses whether a string is one, and takes [::1] for a pattern.
        origins=[re.compile(re.escape(origin) + r"\Z") for origin in origins],
        methods=["GET", "HEAD"],
        allow_headers=(*ALLOWED_HEADERS, *headers),
        expose_headers=EXPOSED_HEADERS,
        max_age=MAX_AGE_SECONDS,
        vary_header=False,
    )
    app.after_request(_vary)


def _vary(response: Response) -> Response:
    # flask-cors would add it only for allowed origins; a cache must know it for the others, too.
    response.vary.add("Origin")
    return response


def fields_of_refusal(origin: str, origins: Sequence[str]) -> list[tuple[str, str]]:
    """List the CORS header fields of a response with which the server refuses a request.

    Args:
        origin: The ``Origin`` of the request; empty if it has none.
        origins: The allowed origins.

    Returns:
        The fields.
    """
    if not origins:
        return []
    fields = [("Vary", "Origin")]
    if origin in origins:
        fields.append(("Access-Control-Allow-Origin", origin))
        fields.append(("Access-Control-Expose-Headers", ", ".join(EXPOSED_HEADERS)))
    return fields
