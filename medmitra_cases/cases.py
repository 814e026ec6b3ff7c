"""The endpoint ``GET /cases/all_cases``: query in, DAO call, response out."""

from collections.abc import Generator
from itertools import chain
from typing import Any
from urllib.parse import parse_qs

from flask import Blueprint, Response, request
from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from medmitra_cases.dao import CaseBatches, Cases, fetch_cases
from medmitra_cases.database import Database
from medmitra_cases.error_handlers import broken_off
from medmitra_cases.request_id import request_id
from medmitra_cases.schemas import CasesQuerySchema, CasesSchema, to_json

# A doctor with more cases gets them as they are read, in chunks: held at once, a case costs some 1.5 kB, more
# where its summary is long.
WHOLE_CASES = 2_000
CHUNK_CASES = 1_000

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
        chunks = _chunks(batches, request_id())
        first = next(chunks)  # a failure up to here is still a 500
        pieces = ClosingIterator(chain([first], chunks), chunks.close)
        return _ReadyResponse(pieces, headers=_HEADERS, direct_passthrough=True)

    return blueprint


def _chunks(batches: CaseBatches, name: str) -> Generator[bytes, None, None]:
    """Write the answer in pieces. If that fails the last one never comes, and what was sent is not JSON.

    Args:
        batches: The cases; closed at the end.
        name: The request's id.

    Yields:
        A piece of the answer.

    Raises:
        DatabaseError: The first piece could not be read.
        BrokenOff: A later piece could not be read or written.
    """
    try:
        yield b'{"cases":[' + _elements(next(batches, Cases([], [])))
        try:
            for cases in batches:
                yield b"," + _elements(cases)
        except Exception as error:
            raise broken_off(error, name) from None
        yield b"]}"
    finally:
        batches.close()


def _elements(cases: Cases) -> bytes:
    """Write cases as the elements of a JSON array, without its brackets."""
    return to_json(_CASES.case.dump_rows(*cases))[1:-1]
