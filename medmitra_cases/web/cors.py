"""Lets pages of other origins read the answers (the Fetch standard's CORS protocol)."""

import re
from collections.abc import Sequence

from flask import Flask, Response
from flask_cors import CORS

# What a page may read of an answer beside its body.
EXPOSED_HEADERS = ("ETag", "Link", "X-Request-ID", "X-Total-Count")

# What a page may add to its request. A preflight asks for them, and its answer is good for an hour.
ALLOWED_HEADERS = ("Authorization", "Content-Type", "If-None-Match")
MAX_AGE_SECONDS = 3_600


def init_app(app: Flask, origins: Sequence[str]) -> None:
    """Answer pages of these origins as they need it, errors included. Without origins change nothing.

    Args:
        app: The application.
        origins: Each as a browser writes it, such as ``https://app.example``.
    """
    if not origins:
        return
    CORS(
        app,
        # As patterns: of strings flask-cors guesses whether they are some, and takes [::1] for one.
        origins=[re.compile(re.escape(origin) + r"\Z") for origin in origins],
        methods=["GET", "HEAD"],
        allow_headers=ALLOWED_HEADERS,
        expose_headers=EXPOSED_HEADERS,
        max_age=MAX_AGE_SECONDS,
        vary_header=False,
    )
    app.after_request(_vary)


def _vary(response: Response) -> Response:
    # flask-cors would say so only where the origin is one of ours; a cache must know it of the others, too.
    response.vary.add("Origin")
    return response
