"""CORS: pages of other origins may read the responses (Fetch standard, "CORS protocol")."""

import re
from collections.abc import Sequence

from flask import Flask, Response
from flask_cors import CORS

from medmitra_cases.web.headers import ignore_if_long

# The response header fields that a page may read.
EXPOSED_HEADERS = ("ETag", "Link", "X-Request-ID", "X-Total-Count")

# The request header fields that a page may send, and how long a browser may cache that answer.
ALLOWED_HEADERS = ("Authorization", "Content-Type", "If-None-Match")
MAX_AGE_SECONDS = 3_600


def init_app(app: Flask, origins: Sequence[str]) -> None:
    """Add the CORS header fields to all responses, errors included. Without origins nothing changes.

    Args:
        app: The application.
        origins: The allowed origins, as a browser writes them: ``https://app.example``.
    """
    if not origins:
        return
    app.before_request(ignore_if_long("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"))
    CORS(
        app,
        # As patterns: flask-cors guesses whether a string is one, and takes [::1] for a pattern.
        origins=[re.compile(re.escape(origin) + r"\Z") for origin in origins],
        methods=["GET", "HEAD"],
        allow_headers=ALLOWED_HEADERS,
        expose_headers=EXPOSED_HEADERS,
        max_age=MAX_AGE_SECONDS,
        vary_header=False,
    )
    app.after_request(_vary)


def _vary(response: Response) -> Response:
    # flask-cors would add it only for allowed origins; a cache must know it for the others, too.
    response.vary.add("Origin")
    return response
