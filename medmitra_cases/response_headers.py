"""The header fields that every answer carries."""

from flask import Flask, Response

from medmitra_cases.request_id import request_id

# What an answer is, its Content-Type says; and should a browser show one as a page, it may do nothing there.
SAFETY = (
    ("X-Content-Type-Options", "nosniff"),
    (
        "Content-Security-Policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


def init_app(app: Flask) -> None:
    """Add the fields to every answer, and the id of its request.

    Args:
        app: The application.
    """
    app.after_request(_add)


def _add(response: Response) -> Response:
    response.headers.extend((*SAFETY, ("X-Request-ID", request_id())))
    return response
