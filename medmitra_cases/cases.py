"""The endpoint ``GET /cases/all_cases``: query in, DAO call, response out."""

from urllib.parse import parse_qs

from flask import Blueprint, Response, request

from medmitra_cases.dao import fetch_cases
from medmitra_cases.database import Database
from medmitra_cases.schemas import CasesQuerySchema, CasesSchema, to_json

# Built once: marshmallow copies every field each time a schema is made.
_QUERY = CasesQuerySchema()
_CASES = CasesSchema()


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
        query = _QUERY.load(parse_qs(query_string, keep_blank_values=True))
        rows = database.read(fetch_cases, query["user_id"])
        response = Response(to_json(_CASES.dump_rows(rows)), mimetype="application/json")
        # Health data: no shared cache may keep it, and no cache may answer without asking again.
        response.headers["Cache-Control"] = "private, no-cache"
        return response

    return blueprint
