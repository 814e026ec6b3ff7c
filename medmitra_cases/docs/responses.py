"""The OpenAPI description of the responses: statuses, headers, bodies and examples."""

from collections.abc import Iterable
from typing import Any

from marshmallow import Schema

from medmitra_cases import contract
from medmitra_cases.docs.fields import json_pattern
from medmitra_cases.schemas import CaseListSchema, ErrorSchema
from medmitra_cases.telemetry import VALID_ID
from medmitra_cases.web import CACHE_HEADERS, SECURITY_HEADERS, STRICT_APPLIED


def _string_header(description: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "required": True, "schema": {"type": "string", **schema}}


_CACHE_CONTROL, _VARY = (name for name, _ in CACHE_HEADERS)
_CHALLENGE = "WWW-Authenticate"
_HEADERS: dict[str, dict[str, Any]] = {
    "ETag": _string_header(
        "The version of this response. Send it back as `If-None-Match`.",
        examples=['"5f2b9c0d1e3a4b6c8d7e9f0a1b2c3d4e"'],
    ),
    "X-Total-Count": {
        "description": "The number of matching cases. Only with `limit` or `page`.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Link": {
        "description": "The URLs of the `first`, `prev`, `next` and `last` page (RFC 8288), relative to the"
        " URL of the request. Only with `limit` or `page`. Long filters leave out some.",
        "schema": {"type": "string", "examples": ['<?user_id=…&limit=10&page=2>; rel="last"']},
    },
    STRICT_APPLIED[0]: {
        "description": "Only with `Prefer: handling=strict`: all parameters of the request exist.",
        "schema": {"type": "string", "const": STRICT_APPLIED[1]},
    },
    _CACHE_CONTROL: _string_header(
        "Shared caches must not store the response. Every cache must revalidate it."
    ),
    _VARY: _string_header("The request headers that the response depends on."),
    _CHALLENGE: _string_header(
        '`Bearer`, with `error="invalid_token"` if the request has an invalid token (RFC 6750).'
    ),
    "X-Request-ID": _string_header(
        "The id of the request in the service's log: from the reverse proxy, or else generated.",
        pattern=json_pattern(VALID_ID.pattern),
    ),
    **{
        name: _string_header("Browsers must treat the response as data, not as a page.", const=value)
        for name, value in SECURITY_HEADERS
    },
}
_COMMON_HEADERS = ("X-Request-ID", *(name for name, _ in SECURITY_HEADERS))
_CASES_HEADERS = (
    "ETag",
    "X-Total-Count",
    "Link",
    STRICT_APPLIED[0],
    *(name for name, _ in CACHE_HEADERS),
    *_COMMON_HEADERS,
)

# The description of each error status, and an example of its detail.
_ERRORS = {
    400: (
        "A parameter is missing, repeated or invalid; `detail` names it.",
        "user_id is missing",
    ),
    401: ("The token is missing, malformed, expired or not from the issuer.", "the token has expired (exp)"),
    403: ("The token belongs to another doctor.", "user_id is not the doctor that the token was issued to"),
    413: ("The request body is larger than 64 KiB. No body is needed.", "exceeds max_body of 65536"),
    431: (
        "The request header is larger than 32 KiB. A proxy may allow less.",
        "exceeds max_header of 32768",
    ),
    500: ("The service failed.", "Internal server error: database unavailable (request id 3f9c0a7be1d2485c)"),
    501: (
        "The request has a `Transfer-Encoding` other than `chunked`.",
        "Transfer-Encoding requested is not supported.",
    ),
}
_TOKEN_STATUSES = (401, 403)

# The errors of a reverse proxy with deploy/nginx.conf. Other proxies can send other headers, and HTML.
_PROXY_ERRORS = {
    414: ("The reverse proxy refuses the URL.", "the URL is too long"),
    429: ("The reverse proxy received too many requests.", "too many requests from this address"),
    502: (
        "The reverse proxy does not reach the service.",
        "Internal server error: the service does not answer (request id 3f9c0a7be1d2485c)",
    ),
    504: (
        "The reverse proxy received no response in time.",
        "Internal server error: the service does not answer (request id 3f9c0a7be1d2485c)",
    ),
}


def headers(*, needs_tokens: bool) -> dict[str, dict[str, Any]]:
    """Describe every response header.

    Args:
        needs_tokens: Whether requests need a token.

    Returns:
        OpenAPI Header Objects by name.
    """
    return {name: header for name, header in _HEADERS.items() if needs_tokens or name != _CHALLENGE}


def responses(*, needs_tokens: bool, with_bodies: bool) -> dict[int, dict[str, Any]]:
    """Describe every response to a request for cases.

    Args:
        needs_tokens: Whether requests need a token.
        with_bodies: Whether the responses have bodies; those to HEAD have none.

    Returns:
        OpenAPI Response Objects by status. They contain names of headers and classes of marshmallow schemas.
    """
    described = {
        200: _response("The cases.", _CASES_HEADERS, CaseListSchema, contract.EXAMPLE),
        304: _response("Nothing has changed since the response with this `ETag`.", _CASES_HEADERS),
    }
    for status, (description, detail) in _ERRORS.items():
        if needs_tokens or status not in _TOKEN_STATUSES:
            challenge = [_CHALLENGE] if status == 401 else []
            described[status] = _response(
                description, (*challenge, *_COMMON_HEADERS), ErrorSchema, {"detail": detail}
            )
    for status, (description, detail) in _PROXY_ERRORS.items():
        described[status] = _response(description, (), ErrorSchema, {"detail": detail})
    if not with_bodies:
        for response in described.values():
            response.pop("content", None)
    return dict(sorted(described.items()))


def _response(
    description: str, headers: Iterable[str], schema: type[Schema] | None = None, example: Any = None
) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": description,
        "headers": {name: name for name in headers},
    }
    if schema is not None:
        response["content"] = {"application/json": {"schema": schema, "example": example}}
    return response
