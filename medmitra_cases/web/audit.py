"""Who asked for whose cases, and what came of it: a line of JSON for each request, on a logger of its own."""

import logging
import time
from datetime import datetime, timezone
from http import HTTPStatus

import msgspec
from flask import Blueprint, Response, g, request

from medmitra_cases.telemetry import LineHandler, request_id

_log = logging.getLogger("medmitra_cases.audit")

BROKEN_OFF = "broken_off"
CUT_OFF = "cut_off"

_unwritten: set["Entry"] = set()


class Entry:
    """What the audit says of one request for cases. Neither names nor tokens, nor anything else of a patient.

    Attributes:
        request_id: The request's id.
        subject: The doctor whose token it carries, as a UUID; None without one that holds.
        cases: How many cases were handed to the server to send.
    """

    def __init__(self, user_id: str | None) -> None:
        """Begin with the current request.

        Args:
            user_id: The doctor whose cases are asked for; None if that is not one UUID.
        """
        self.subject: str | None = None
        self.cases = 0
        self._user_id = user_id
        self.request_id = request_id.current()
        self._client = request.remote_addr  # the one that the trusted proxy names, if it does
        self._time = datetime.now(timezone.utc)
        self._started = time.perf_counter()
        _unwritten.add(self)

    def write(self, status: int | None, outcome: str | None = None) -> None:
        """Write the line, once.

        Args:
            status: The HTTP status of the answer; None if there is none.
            outcome: What came of the request; by default the status's name, such as ``not_modified``.
        """
        try:
            _unwritten.remove(self)
        except KeyError:  # cut_off has written it meanwhile
            return
        line = {
            "time": self._time,
            "request_id": self.request_id,
            "client": self._client,
            "subject": self.subject,
            "user_id": self._user_id,
            "outcome": outcome if outcome or not status else HTTPStatus(status).name.lower(),
            "status": status,
            "cases": self.cases,
            "duration_ms": round((time.perf_counter() - self._started) * 1_000, 3),
        }
        _log.info(msgspec.json.encode(line).decode())


def begin(user_id: str | None) -> Entry:
    """Begin the current request's entry, which is written with its answer unless ``defer`` is called.

    Args:
        user_id: The doctor whose cases are asked for; None if that is not one UUID.

    Returns:
        The entry.
    """
    entry = g.audit_entry = Entry(user_id)
    return entry


def defer() -> None:
    """Take the current request's entry over: whoever has it writes it, and not the end of the request."""
    g.pop("audit_entry")


def write_unfinished() -> None:
    """Write the entries of requests that are worked on: the process ends."""
    for entry in list(_unwritten):
        entry.write(None, CUT_OFF)


def init_blueprint(blueprint: Blueprint) -> None:
    """Write the entry of each request that the blueprint answers, errors included.

    Unless the program has given the logger handlers, the lines go to stderr as they are.

    Args:
        blueprint: The blueprint.
    """
    _log.setLevel(logging.INFO)
    if not _log.handlers:
        _log.addHandler(LineHandler())
        _log.propagate = False
    blueprint.after_request(_write)


def _write(response: Response) -> Response:
    entry: Entry | None = g.pop("audit_entry", None)
    if entry is not None:
        entry.write(response.status_code)
    return response
