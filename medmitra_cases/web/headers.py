"""The header fields that every answer carries."""

from flask import Flask, Response

from medmitra_cases.telemetry import request_id

# What an answer is, its Content-Type says.
NOSNIFF = ("X-Content-Type-Options", "nosniff")
# Should a browser show an answer as a page, it may do nothing there.
POLICY = (
    "Content-Security-Policy",
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
SECURITY_HEADERS = (NOSNIFF, POLICY)

# Of answers with cases.
CACHE_HEADERS = (
    # Health data: no shared cache may keep it, and no cache may answer without asking again.
    ("Cache-Control", "private, no-cache"),
    ("Vary", "Authorization"),
)


def init_app(app: Flask) -> None:
    """Add the fields to every answer, and the id of its request. A policy that an answer has stays.

    Args:
        app: The application.
    """
    app.after_request(_add)


def _add(response: Response) -> Response:
    safety = SECURITY_HEADERS if POLICY[0] not in response.headers else (NOSNIFF,)
    response.headers.extend((*safety, ("X-Request-ID", request_id.current())))
    return response
