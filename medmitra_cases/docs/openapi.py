"""Generates the OpenAPI 3.1 document from the schemas of the requests and responses."""

from typing import Any

from apispec import APISpec

from medmitra_cases.auth import MAX_TOKEN_BYTES
from medmitra_cases.contract import PATH, __version__
from medmitra_cases.docs.fields import FieldsPlugin
from medmitra_cases.docs.responses import headers, responses
from medmitra_cases.schemas import CASE_QUERY

_SERVICE = """
This service returns the patient cases of a doctor. It has one endpoint.

Every error has the same body, `{"detail": "…"}`. This includes the errors of other paths (404) and methods
(405), and the errors that a reverse proxy may add (414, 429, 502, 504). All responses to pages of an
allowed origin, including errors, have the CORS headers.
"""

_CASES = """
A request with only `user_id` returns all cases of the doctor, in the order in which the database inserted
them. All other parameters are optional and can be combined. `status` and `gender` can be given several
times. Another parameter that is given twice, with either of its names, is a 400. Unknown parameters are
ignored, except with `Prefer: handling=strict`. An empty value (`limit=`) counts as absent, as forms send it;
only `status=`, `gender=` and `search=` mean the empty text.

**Refresh:** send the `ETag` of a response as `If-None-Match`. The response is 304 without a body if nothing
has changed. A browser's `fetch` does this automatically.

**Pages:** with `limit` or `page` the response has the header `X-Total-Count`, the number of matching cases,
and the header `Link` with the URLs of the `first`, `prev`, `next` and `last` page.
"""

_IF_NONE_MATCH = {
    "in": "header",
    "name": "If-None-Match",
    "description": "The `ETag` of an earlier response, with its quotes. Several tags and `*` are allowed.",
    "schema": {"type": "string"},
}

_PREFER = {
    "in": "header",
    "name": "Prefer",
    "description": "`handling=strict` (RFC 7240): an unknown parameter is a 400 that names the most similar"
    " one.",
    "schema": {"type": "string"},
}

_BEARER = "bearer"
_TAG = {"name": "Cases", "description": "The patient cases of a doctor."}


def openapi(*, needs_tokens: bool) -> dict[str, Any]:
    """Generate the OpenAPI document.

    Args:
        needs_tokens: Whether requests for cases need a token.

    Returns:
        The document as a JSON object.
    """
    spec = APISpec(
        title="MedMitra cases",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[FieldsPlugin()],
        info={"description": _SERVICE.strip(), "license": {"name": "MIT", "identifier": "MIT"}},
        # Relative to this document, because a proxy may serve the service below a path prefix.
        servers=[{"url": "."}],
    )
    spec.tag(_TAG)
    for name, header in headers(needs_tokens=needs_tokens).items():
        spec.components.header(name, header)
    spec.path(
        PATH,
        operations={
            method: {
                "tags": [_TAG["name"]],
                "operationId": name,
                "summary": summary,
                "description": description.strip(),
                "parameters": [{"in": "query", "schema": CASE_QUERY}, _IF_NONE_MATCH, _PREFER],
                "responses": responses(needs_tokens=needs_tokens, with_bodies=method == "get"),
                "security": [{_BEARER: []}] if needs_tokens else [],
            }
            for method, name, summary, description in (
                ("get", "get_all_cases", "All cases of a doctor", _CASES),
                ("head", "head_all_cases", "The headers of GET", "The same as GET, without the body."),
            )
        },
    )
    if needs_tokens:
        spec.components.security_scheme(
            _BEARER,
            {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The doctor's token without the word `Bearer`,"
                f" at most {MAX_TOKEN_BYTES:,} bytes.",
            },
        )
    document: dict[str, Any] = spec.to_dict()
    return {"openapi": document.pop("openapi"), **document}  # first key: the version
