"""The audit: one line of JSON for each request for cases, with the doctor and the outcome."""

import logging
import time
from datetime import datetime, timezone
from http import HTTPStatus

import msgspec
from flask import Blueprint, Response, g, request

from medmitra_cases.contract import PATH
from medmitra_cases.schemas import find_user_id
from medmitra_cases.telemetry import LineHandler, call_after_fork, request_id
from medmitra_cases.web.addresses import peer_address
from medmitra_cases.web.error_handlers import ERROR_KIND

_log = logging.getLogger("medmitra_cases.audit")  # documented: operators attach handlers to it
_handler = LineHandler()

BROKEN_OFF = "broken_off"
CUT_OFF = "cut_off"
REFUSED = "refused"

_unwritten: set["Entry"] = set()
# The parent of a forked process writes the entries of its requests itself.
call_after_fork(_unwritten.clear)


class Entry:
    """The audit's entry for one request. It has no token, no name and no other data of a patient.

    Attributes:
        request_id: The request's id.
        user_id: The doctor whose cases are requested; None if that is not one UUID.
        subject: The doctor of the request's token, as a UUID; None without a valid token.
        cases: The number of cases that were passed to the server for sending.
        status: The HTTP status of the response.
        outcome: The outcome of the request; None stands for the status's name, such as ``not_modified``.
        error: The kind of the failure, such as ``database_unavailable``; None if the service did not fail.
    """

    def __init__(self, user_id: str | None, client: str) -> None:
        """Start with the current request.

        Args:
            user_id: The doctor whose cases are requested; None if that is not one UUID.
            client: The address of the client, which the trusted proxy names if there is one.
        """
        self.user_id = user_id
        self.subject: str | None = None
        self.cases = 0
        self.status = 0
        self.outcome: str | None = None
        self.error: str | None = None
        self.request_id = request_id.current()
        self._client = client
        self._time = datetime.now(timezone.utc)
        self._started = time.perf_counter()
        _unwritten.add(self)

    def write(self, *, cut_off: bool = False) -> None:
        """Write the line, once.

        Args:
            cut_off: Whether the process ends before the response does.
        """
        try:
            _unwritten.remove(self)
        except KeyError:  # write_unfinished() has written it
            return
        line = {
            "time": self._time,
            "request_id": self.request_id,
            "client": self._client,
            "subject": self.subject,
            "user_id": self.user_id,
            "outcome": CUT_OFF if cut_off else self.outcome or HTTPStatus(self.status).name.lower(),
            "status": None if cut_off else self.status,
            "cases": self.cases,
            "duration_ms": round((time.perf_counter() - self._started) * 1_000, 3),
            "error": self.error,
        }
        text = msgspec.json.encode(line).decode()
        is_plain = _log.handlers == [_handler] and not _log.filters and not _handler.filters
        if is_plain and _log.isEnabledFor(logging.INFO):
            _handler.writer.put(text)  # the log record would take as long as the rest of this method
        else:
            _log.info(text)


def begin(user_id: str | None) -> Entry:
    """Start the entry of the current request. It is written when its response ends.

    Args:
        user_id: The doctor whose cases are requested; None if that is not one UUID.

    Returns:
        The entry.
    """
    entry = g.audit_entry = Entry(user_id, peer_address(request.remote_addr or ""))
    return entry


def write_refused(route: str, query_string: str, client: str, status: int) -> None:
    """Write the entry of a request for cases that the server refuses before the application gets it.

    Args:
        route: The route of the request. Nothing is written unless it is the route of cases.
        query_string: The query string as WSGI has it, as far as the server could read it.
        client: The address of the client.
        status: The HTTP status of the response.
    """
    if route == PATH:
        entry = Entry(find_user_id(query_string.encode("latin-1")), client)
        entry.status, entry.outcome = status, REFUSED
        entry.write()


def write_unfinished() -> None:
    """Write the entries of requests whose responses have not ended, because the process ends."""
    for entry in list(_unwritten):
        entry.write(cut_off=True)


def init_blueprint(blueprint: Blueprint) -> None:
    """Write an entry for each request that the blueprint handles, errors included.

    The lines go to stderr, unless the program has already given the logger handlers.

    Args:
        blueprint: The blueprint.
    """
    _log.setLevel(logging.INFO)
    if not _log.handlers:
        _log.addHandler(_handler)
        _log.propagate = False
    blueprint.after_request(_end)


def _end(response: Response) -> Response:
    entry: Entry | None = g.pop("audit_entry", None)
    if entry is not None:
        entry.status = response.status_code
        entry.error = request.environ.get(ERROR_KIND)
        if response.is_streamed:
            response.call_on_close(entry.write)
        else:
            entry.write()
    return response
