"""The endpoint ``GET /cases/all_cases``: query in, DAO call, response out."""

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from flask import Blueprint, Response, request
from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from medmitra_cases.dao import CaseBatches, Cases, fetch_cases
from medmitra_cases.database import Database
from medmitra_cases.errors import DatabaseError
from medmitra_cases.request_id import request_id
from medmitra_cases.schemas import CasesQuerySchema, CasesSchema, to_json

# A doctor with more cases gets them as they are read, in chunks: held at once, a case costs some 1.5 kB.
WHOLE_CASES = 2_000
CHUNK_CASES = 1_000

_log = logging.getLogger(__name__)

# Built once: marshmallow copies every field each time a schema is made.
_QUERY = CasesQuerySchema()
_CASES = CasesSchema()

_HEADERS = (
    ("Content-Type", "application/json"),
    # Health data: no shared cache may keep it, and no cache may answer without asking again.
    ("Cache-Control", "private, no-cache"),
)


class _ReadyResponse(Response):
    """A response whose headers leave as they are: looking for what to add or mend costs every request."""

    def get_wsgi_headers(self, _environ: dict[str, Any]) -> Headers:
        return self.headers


def create_blueprint(database: Database) -> Blueprint:
    """Make the blueprint that answers from the given database.

    Args:
        database: Where the cases are.

    Returns:
        The blueprint, to be registered at the root.
    """
    blueprint = Blueprint("cases", __name__, url_prefix="/cases")

    @blueprint.get("/all_cases")
    def all_cases() -> Response:
        """Answer with all cases of one doctor (contract, "200")."""
        # Not request.args: it raises on bytes that are not UTF-8.
        query_string = request.query_string.decode("utf-8", "replace")
        user_id: str = _QUERY.load(parse_qs(query_string, keep_blank_values=True))["user_id"]
        cases = database.read(fetch_cases, user_id, at_most=WHOLE_CASES)
        if cases is not None:
            body = to_json(_CASES.dump_rows(*cases))
            length = ("Content-Length", str(len(body)))
            return _ReadyResponse([body], headers=(*_HEADERS, length), direct_passthrough=True)
        batches = database.read(CaseBatches, user_id, size=CHUNK_CASES)
        first = next(batches, Cases([], []))  # a failure up to here is still a 500
        chunks = ClosingIterator(_chunks(first, batches, request_id()), batches.close)
        return _ReadyResponse(chunks, headers=_HEADERS, direct_passthrough=True)

    return blueprint


def _chunks(first: Cases, batches: CaseBatches, name: str) -> Iterator[bytes]:
    """Write the answer in pieces. If reading fails the last one never comes, and what was sent is not JSON.

    Args:
        first: The first of the cases.
        batches: The rest of them.
        name: The request's id.

    Yields:
        A piece of the answer.

    Raises:
        DatabaseError: Reading failed. The server then breaks the transfer off.
    """
    yield b'{"cases":[' + to_json(_CASES.case.dump_rows(*first))[1:-1]
    try:
        for cases in batches:
            yield b"," + to_json(_CASES.case.dump_rows(*cases))[1:-1]
    except DatabaseError as error:
        _log.error("request %s broken off: %s", name, error.phrase)
        raise
    yield b"]}"
