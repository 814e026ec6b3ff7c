"""What the documentation says of the answers: their statuses, headers, bodies and examples."""

from collections.abc import Iterable
from typing import Any

from marshmallow import Schema

from medmitra_cases import contract
from medmitra_cases.docs.fields import json_pattern
from medmitra_cases.schemas import CasesSchema, ErrorSchema
from medmitra_cases.telemetry import VALID_ID
from medmitra_cases.web import CACHE_HEADERS, SECURITY_HEADERS


def _text(description: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "required": True, "schema": {"type": "string", **schema}}


_CACHE_CONTROL, _VARY = (name for name, _ in CACHE_HEADERS)
_CHALLENGE = "WWW-Authenticate"
_HEADERS: dict[str, dict[str, Any]] = {
    "ETag": _text(
        "Stands for this answer: what you send back as `If-None-Match`.",
        examples=['"5f2b9c0d1e3a4b6c8d7e9f0a1b2c3d4e"'],
    ),
    "X-Total-Count": {
        "description": "How many cases match. Of a page only (`limit`, `page`).",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Link": {
        "description": "Where the `first`, `prev`, `next` and `last` page are (RFC 8288), to be resolved"
        " against the URL of the request. Of a page only.",
        "schema": {"type": "string", "examples": ['<?user_id=…&limit=10&page=2>; rel="last"']},
    },
    _CACHE_CONTROL: _text("No shared cache may keep it, and no cache answer without asking again."),
    _VARY: _text("What other than the URL the answer depends on."),
    _CHALLENGE: _text(
        '`Bearer`, with `error="invalid_token"` where there is a token that does not hold (RFC 6750).'
    ),
    "X-Request-ID": _text(
        "Names the request in the service's log: what the proxy in front sent, or else made here.",
        pattern=json_pattern(VALID_ID.pattern),
    ),
    **{
        name: _text("For browsers: they are to take the answer for data.", const=value)
        for name, value in SECURITY_HEADERS
    },
}
_COMMON_HEADERS = ("X-Request-ID", *(name for name, _ in SECURITY_HEADERS))
_CASES_HEADERS = ("ETag", "X-Total-Count", "Link", *(name for name, _ in CACHE_HEADERS))

# What is wrong, and what the detail may be.
_ERRORS = {
    400: (
        "A parameter is missing, repeated or not as it must be; `detail` says which.",
        "user_id is missing",
    ),
    401: ("The token is missing, malformed, expired or not the issuer's.", "the token has expired (exp)"),
    403: ("The token is another doctor's.", "user_id is not the doctor that the token was issued to"),
    413: ("The request has a body of more than 64 KiB; it needs none.", "exceeds max_body of 65536"),
    431: (
        "The request has a header of more than 256 KiB; a proxy may allow less.",
        "exceeds max_header of 262144",
    ),
    500: ("The service failed.", "Internal server error: database unavailable (request id 3f9c0a7be1d2485c)"),
    501: (
        "The request has a `Transfer-Encoding` other than `chunked`.",
        "Transfer-Encoding requested is not supported.",
    ),
}
_TOKEN_STATUSES = (401, 403)


def headers(*, needs_tokens: bool) -> dict[str, dict[str, Any]]:
    """Describe every header of the answers.

    Args:
        needs_tokens: Whether requests need a token.

    Returns:
        OpenAPI's Header Objects by name.
    """
    return {name: header for name, header in _HEADERS.items() if needs_tokens or name != _CHALLENGE}


def responses(*, needs_tokens: bool, with_bodies: bool) -> dict[int, dict[str, Any]]:
    """Describe every answer to a request for cases.

    Args:
        needs_tokens: Whether it needs a token.
        with_bodies: Whether the answers have bodies; those to HEAD have none.

    Returns:
        OpenAPI's Response Objects by status, the headers in them by name, the schemas as marshmallow's.
    """
    described = {
        200: _response("The cases.", _CASES_HEADERS, CasesSchema, contract.EXAMPLE),
        304: _response("Nothing has changed: you have the answer.", _CASES_HEADERS),
    }
    for status, (meaning, detail) in _ERRORS.items():
        if needs_tokens or status not in _TOKEN_STATUSES:
            challenge = [_CHALLENGE] if status == 401 else []
            described[status] = _response(meaning, challenge, ErrorSchema, {"detail": detail})
    if not with_bodies:
        for response in described.values():
            response.pop("content", None)
    return described


def _response(
    meaning: str, headers: Iterable[str], schema: type[Schema] | None = None, example: Any = None
) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": meaning,
        "headers": {name: name for name in (*headers, *_COMMON_HEADERS)},
    }
    if schema is not None:
        response["content"] = {"application/json": {"schema": schema, "example": example}}
    return response
