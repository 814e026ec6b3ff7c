"""The endpoint ``GET /cases/all_cases``: query in, DAO call, response out."""

import time

from flask import Blueprint, Response, request
from werkzeug.datastructures import ETags

from medmitra_cases.auth import Verifier
from medmitra_cases.contract import PATH
from medmitra_cases.dao import CaseReader
from medmitra_cases.database import Database
from medmitra_cases.errors import OtherDoctor, Overloaded
from medmitra_cases.responses import LIMITS, NO_LIMITS, CasesRequest, respond
from medmitra_cases.schemas import find_user_id, parse_query_string
from medmitra_cases.web import RECEIVED_AT, STRICT_APPLIED, audit, is_strict

# Seconds that a request may have waited to run. Behind queries that hang many wait, and most of their
# clients have left by then.
MAX_QUEUE_SECONDS = 10.0

_NO_TAGS = ETags()


def create_blueprint(
    database: Database, verifier: Verifier | None, *, row_versions: bool | None
) -> Blueprint:
    """Make the blueprint with the endpoint.

    Args:
        database: The database with the cases.
        verifier: Verifies the token that every request then needs; None if ``user_id`` alone decides.
        row_versions: Whether entity tags are made of the versions of the rows, not of the body; None if the
            definition of ``medmitra.cases`` decides.

    Returns:
        The blueprint, to be registered at the root.
    """
    blueprint = Blueprint("cases", __name__)
    audit.init_blueprint(blueprint)

    @blueprint.get(PATH)
    def all_cases() -> Response:
        """Return the cases of one doctor (contract, "200")."""
        # Nothing is parsed before the token is verified: for a long query that takes 40 times as long.
        entry = audit.begin(None if verifier is None else find_user_id(request.query_string))
        if verifier is not None:
            entry.subject = verifier.subject(request.headers.get("Authorization"))
        # Not request.args: it raises on bytes that are not UTF-8.
        sent = parse_query_string(request.query_string)
        entry.user_id = sent.user_id
        strict = is_strict(request.environ)
        if strict:
            sent.check_names()
        query = sent.query
        subject = entry.subject or query.user_id
        if subject != query.user_id:
            raise OtherDoctor
        # A server that says when the request arrived lets the wait before that count.
        received_at = request.environ.get(RECEIVED_AT) or time.monotonic()
        if time.monotonic() - received_at > MAX_QUEUE_SECONDS:
            raise Overloaded
        reader = CaseReader(
            database, query, subject=subject, row_versions=row_versions, received_at=received_at
        )
        tags = request.if_none_match if "HTTP_IF_NONE_MATCH" in request.environ else _NO_TAGS
        limits = request.environ.get(LIMITS, NO_LIMITS)
        head = request.method == "HEAD"
        response = respond(reader, CasesRequest(sent.parameters, tags, head, entry, limits))
        if strict:
            response.headers.add(*STRICT_APPLIED)
        return response

    return blueprint
