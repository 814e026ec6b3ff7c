"""Turns every exception into the contract's error body."""

import logging
from collections.abc import Iterable

from flask import Flask, Response, request
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, InternalServerError

from medmitra_cases.errors import (
    BrokenOff,
    DataRefused,
    Fault,
    OtherDoctor,
    TokenInvalid,
    TokenMissing,
    UnknownCursor,
    describe_invalid,
)
from medmitra_cases.schemas import error_body
from medmitra_cases.telemetry import request_id

_log = logging.getLogger(__name__)

# The key in the WSGI environment of the kind of the failure, if the response is a 500.
ERROR_KIND = "medmitra_cases.error_kind"


def error_response(status: int, detail: str, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Make an error response.

    Args:
        status: The HTTP status.
        detail: One sentence for the client.
        headers: More header fields, such as ``Allow``.

    Returns:
        The response.
    """
    response = Response(error_body(detail), status=status, mimetype="application/json")
    response.headers.extend(headers)
    return response


def broken_off(error: Exception, name: str) -> BrokenOff:
    """Log why a response that has begun cannot be completed.

    Args:
        error: The error.
        name: The request's id.

    Returns:
        The error to raise ``from None`` instead: servers log what they get, and the original may quote data.
    """
    _log_fault("broken off", error, name)
    return BrokenOff(_as_fault(error).kind)


def init_app(app: Flask) -> None:
    """Register the handlers.

    Args:
        app: The application.
    """
    app.register_error_handler(TokenMissing, _token_missing)
    app.register_error_handler(TokenInvalid, _token_invalid)
    app.register_error_handler(OtherDoctor, _other_doctor)
    app.register_error_handler(ValidationError, _invalid_query)
    app.register_error_handler(UnknownCursor, _unknown_cursor)
    app.register_error_handler(DataRefused, _data_refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(InternalServerError, _fault)
    app.register_error_handler(Exception, _fault)


def _token_missing(_error: TokenMissing) -> Response:
    # RFC 6750, 3.1: a request without credentials gets no error code.
    challenge = ("WWW-Authenticate", "Bearer")
    return error_response(401, "a token is needed (Authorization: Bearer <token>)", [challenge])


def _token_invalid(error: TokenInvalid) -> Response:
    return error_response(401, str(error), [("WWW-Authenticate", 'Bearer error="invalid_token"')])


def _other_doctor(_error: OtherDoctor) -> Response:
    return error_response(403, "user_id is not the doctor that the token was issued to")


def _invalid_query(error: ValidationError) -> Response:
    return error_response(400, describe_invalid(error))


def _unknown_cursor(_error: UnknownCursor) -> Response:
    return error_response(400, "after must be the case_id of one of this doctor's cases")


def _data_refused(error: DataRefused) -> Response:
    _log.warning("request %s: %s", request_id.current(), error.log_text())
    return error_response(400, error.public_text)


def _http_error(error: HTTPException) -> Response:
    headers = [(name, value) for name, value in error.get_headers() if name != "Content-Type"]
    return error_response(error.code or 500, error.description or error.name, headers)


def _fault(error: Exception) -> Response:
    request.environ[ERROR_KIND] = _as_fault(error).kind
    return error_response(500, report_fault(error))


def report_fault(error: Exception) -> str:
    """Log that the current request failed.

    Args:
        error: The reason.

    Returns:
        The detail of the 500.
    """
    name = request_id.current()
    _log_fault("failed", error, name)
    return f"Internal server error: {_as_fault(error).public_text} (request id {name})"


def _log_fault(event: str, error: Exception, name: str) -> None:
    if isinstance(error, Fault):
        _log.error("request %s %s: %s", name, event, error.log_text())
    else:
        _log.error("request %s %s: %s", name, event, Fault.public_text, exc_info=error)


def _as_fault(error: Exception) -> Fault:
    return error if isinstance(error, Fault) else Fault()
