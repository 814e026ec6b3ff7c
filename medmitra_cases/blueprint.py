"""The endpoint ``GET /cases/all_cases``: query in, DAO call, response out."""

import time

from flask import Blueprint, Response, request
from werkzeug.datastructures import ETags

from medmitra_cases.auth import Verifier
from medmitra_cases.contract import PATH
from medmitra_cases.database import Database
from medmitra_cases.errors import OtherDoctor, Overloaded
from medmitra_cases.responses import CasesRequest, respond
from medmitra_cases.schemas import CANONICAL_UUID, load_query, parameters
from medmitra_cases.web import ARRIVED_AT, audit

# Seconds that a request may have waited for a thread. Behind queries that hang many do, and most of their
# clients have left by then.
MAX_QUEUE_SECONDS = 10.0

_NO_TAGS = ETags()


def create_blueprint(database: Database, verifier: Verifier | None, *, row_versions: bool) -> Blueprint:
    """Make the blueprint that answers from the given database.

    Args:
        database: Where the cases are.
        verifier: Verifies the token that each request then needs; None if ``user_id`` alone decides.
        row_versions: Whether entity tags are made of the rows' versions, and not of the body.

    Returns:
        The blueprint, to be registered at the root.
    """
    blueprint = Blueprint("cases", __name__)
    audit.init_blueprint(blueprint)

    @blueprint.get(PATH)
    def all_cases() -> Response:
        """Answer with the cases of one doctor (contract, "200")."""
        # Not request.args: it raises on bytes that are not UTF-8.
        sent = parameters(request.query_string)
        entry = audit.begin(_single_uuid(sent.get("user_id", [])))
        if verifier is not None:
            entry.subject = verifier.subject(request.headers.get("Authorization"))
        query = load_query(request.query_string)
        subject = entry.subject or query.user_id
        if subject != query.user_id:
            raise OtherDoctor
        # Where the server says when the request came, waiting for a thread counts, too.
        since = request.environ.get(ARRIVED_AT) or time.monotonic()
        if time.monotonic() - since > MAX_QUEUE_SECONDS:
            raise Overloaded
        tags = request.if_none_match if "HTTP_IF_NONE_MATCH" in request.environ else _NO_TAGS
        return respond(database, CasesRequest(sent, query, subject, since, tags, row_versions, entry))

    return blueprint


def _single_uuid(values: list[str]) -> str | None:
    return values[0].lower() if len(values) == 1 and CANONICAL_UUID.match(values[0]) else None
