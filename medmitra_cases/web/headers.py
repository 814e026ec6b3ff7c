"""The header fields of every response, and those of responses with cases."""

from collections.abc import Callable
from typing import Any

from flask import request

from medmitra_cases.telemetry import request_id

# Browsers must not guess the type.
NOSNIFF = ("X-Content-Type-Options", "nosniff")
# A browser that shows a response as a page must not run or load anything.
POLICY = (
    "Content-Security-Policy",
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
SECURITY_HEADERS = (NOSNIFF, POLICY)

# Only for responses with cases.
CACHE_HEADERS = (
    # Health data: no shared cache may store it, and every cache must revalidate it.
    ("Cache-Control", "private, no-cache"),
    ("Vary", "Authorization"),
)


# Bytes. The longest that browsers send has some 200.
MAX_FIELD_BYTES = 500


def ignore_if_long(*names: str) -> Callable[[], None]:
    """Make a function for ``before_request`` that removes header fields which would take long to parse.

    Without it, clients without a token could make the service parse fields of any length.

    Args:
        *names: The fields as keys of the WSGI environment. The response may depend on them, but need not.

    Returns:
        The function.
    """

    def remove_long_fields() -> None:
        for name in names:
            if len(request.environ.get(name, "")) > MAX_FIELD_BYTES:
                del request.environ[name]

    return remove_long_fields


def adding_headers(start_response: Callable[..., Any]) -> Callable[..., Any]:
    """Add the security headers and the request id to a response. A policy that it already has stays.

    This is a WSGI function, because Flask and Werkzeug take ten times as long to add constant fields.

    Args:
        start_response: The function that the server passed to the application (PEP 3333).

    Returns:
        The function that the application calls instead.
    """

    def start(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
        has_policy = any(name == POLICY[0] for name, _ in fields)
        fields += (NOSNIFF,) if has_policy else SECURITY_HEADERS
        fields.append(("X-Request-ID", request_id.current()))
        return start_response(status, fields, exc_info)

    return start
