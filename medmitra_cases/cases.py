"""The endpoint ``GET /cases/all_cases``: query in, DAO call, response out."""

import time
from collections.abc import Generator
from itertools import chain
from typing import Any
from urllib.parse import parse_qs

from flask import Blueprint, Response, request
from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from medmitra_cases import audit, metrics
from medmitra_cases.dao import CaseBatches, Cases, fetch_cases
from medmitra_cases.database import Database
from medmitra_cases.error_handlers import broken_off
from medmitra_cases.errors import OtherDoctor, Overloaded
from medmitra_cases.schemas import CANONICAL_UUID, CasesQuerySchema, CasesSchema, to_json
from medmitra_cases.tokens import Verifier

# A doctor with more cases gets them as they are read, in chunks: held at once, a case costs some 1.5 kB, more
# where its summary is long.
WHOLE_CASES = 2_000
CHUNK_CASES = 1_000

PATH = "/cases/all_cases"

# Seconds that a request may have waited for a thread. Behind queries that hang many do, and most of their
# clients have left by then.
LONGEST_QUEUE_SECONDS = 10.0

# Where in the WSGI environment a server may say when the request came, in seconds of the monotonic clock.
ARRIVED_AT = "medmitra_cases.arrived_at"

# Built once: marshmallow copies every field each time a schema is made.
_QUERY = CasesQuerySchema()
_CASES = CasesSchema()

_HEADERS = (
    ("Content-Type", "application/json"),
    # Health data: no shared cache may keep it, and no cache may answer without asking again.
    ("Cache-Control", "private, no-cache"),
    ("Vary", "Authorization"),
)


class _ReadyResponse(Response):
    """A response whose headers leave as they are: looking for what to add or mend costs every request."""

    def get_wsgi_headers(self, _environ: dict[str, Any]) -> Headers:
        return self.headers


def create_blueprint(database: Database, verifier: Verifier | None) -> Blueprint:
    """Make the blueprint that answers from the given database.

    Args:
        database: Where the cases are.
        verifier: Verifies the token that each request then needs; None if ``user_id`` alone decides.

    Returns:
        The blueprint, to be registered at the root.
    """
    blueprint = Blueprint("cases", __name__)
    audit.init_blueprint(blueprint)

    @blueprint.get(PATH)
    def all_cases() -> Response:
        """Answer with all cases of one doctor (contract, "200")."""
        # Not request.args: it raises on bytes that are not UTF-8.
        parameters = parse_qs(request.query_string.decode("utf-8", "replace"), keep_blank_values=True)
        entry = audit.begin(_one_uuid(parameters.get("user_id", [])))
        if verifier is not None:
            entry.subject = verifier.subject(request.headers.get("Authorization"))
        user_id: str = _QUERY.load(parameters)["user_id"].lower()
        subject = entry.subject or user_id
        if subject != user_id:
            raise OtherDoctor
        # Where the server says when the request came, waiting for a thread counts, too.
        since = request.environ.get(ARRIVED_AT) or time.monotonic()
        if time.monotonic() - since > LONGEST_QUEUE_SECONDS:
            raise Overloaded
        cases = database.read(since, fetch_cases, user_id, subject=subject, at_most=WHOLE_CASES)
        if cases is not None:
            body = to_json(_CASES.dump_rows(*cases))
            entry.cases = 0 if request.method == "HEAD" else len(cases.rows)
            metrics.CASES.inc(entry.cases)
            length = ("Content-Length", str(len(body)))
            return _ReadyResponse([body], headers=(*_HEADERS, length), direct_passthrough=True)
        if request.method == "HEAD":  # nothing of a long list is in its headers
            return _ReadyResponse(headers=_HEADERS)
        batches = database.read(since, CaseBatches, user_id, subject=subject, size=CHUNK_CASES)
        chunks = _chunks(batches, entry)
        first = next(chunks)  # a failure up to here is still a 500
        audit.take()
        pieces = ClosingIterator(chain([first], chunks), chunks.close)
        return _ReadyResponse(pieces, headers=_HEADERS, direct_passthrough=True)

    return blueprint


def _one_uuid(values: list[str]) -> str | None:
    return values[0].lower() if len(values) == 1 and CANONICAL_UUID.match(values[0]) else None


def _chunks(batches: CaseBatches, entry: audit.Entry) -> Generator[bytes, None, None]:
    """Write the answer in pieces. If that fails the last one never comes, and what was sent is not JSON.

    Args:
        batches: The cases; closed at the end.
        entry: The audit's entry; written at the end, unless the first piece fails.

    Yields:
        A piece of the answer.

    Raises:
        DatabaseError: The first piece could not be read.
        BrokenOff: A later piece could not be read or written.
    """
    outcome = None
    try:
        cases = next(batches, Cases([], []))
        piece = b'{"cases":[' + _elements(cases)
        outcome = audit.BROKEN_OFF  # until the last piece is out
        entry.cases = len(cases.rows)
        metrics.CASES.inc(len(cases.rows))
        yield piece
        try:
            for cases in batches:
                piece = b"," + _elements(cases)
                entry.cases += len(cases.rows)
                metrics.CASES.inc(len(cases.rows))
                yield piece
        except Exception as error:
            raise broken_off(error, entry.request_id) from None
        yield b"]}"
        outcome = "ok"
    finally:
        batches.close()
        if outcome is not None:
            entry.write(200, outcome)


def _elements(cases: Cases) -> bytes:
    """Write cases as the elements of a JSON array, without its brackets."""
    return to_json(_CASES.case.dump_rows(*cases))[1:-1]
