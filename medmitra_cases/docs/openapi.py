"""Describes the service as OpenAPI 3.1, out of the schemas that read its requests and write its answers."""

from typing import Any

from apispec import APISpec

from medmitra_cases.auth import MAX_TOKEN_BYTES
from medmitra_cases.contract import PATH, __version__
from medmitra_cases.docs.fields import FieldsPlugin
from medmitra_cases.docs.responses import headers, responses
from medmitra_cases.schemas import CASE_QUERY

_SERVICE = """
*Which cases are mine, and how are they doing?* One endpoint answers that for a doctor.

Every error has the same body, `{"detail": "…"}`: those of other paths (404) and methods (405), too, and those
that a proxy in front may add (414, 429, 502, 504). Pages of other origins that may read the answers find the
headers of CORS in them, too.
"""

_CASES = """
With nothing but `user_id` the answer is the whole list, in the order in which the cases were created in the
database. Each other parameter is optional, and they can be combined. One that is given twice, by either of
its names, is a 400; unknown ones change nothing.

**Refreshing:** send an answer's `ETag` back as `If-None-Match`, and as long as nothing has changed the answer
is 304, without a body. A browser's `fetch` does that by itself.

**Pages:** with `limit` or `page` the answer says in `X-Total-Count` how many cases match, and in `Link` where
the `first`, `prev`, `next` and `last` page are.
"""

_IF_NONE_MATCH = {
    "in": "header",
    "name": "If-None-Match",
    "description": "The `ETag` of an answer that you have, with its quotes; several, or `*`, are fine, too.",
    "schema": {"type": "string"},
}

_BEARER = "bearer"


def openapi(*, needs_tokens: bool) -> dict[str, Any]:
    """Describe the service.

    Args:
        needs_tokens: Whether requests for cases need a token.

    Returns:
        The OpenAPI document, as JSON has it.
    """
    spec = APISpec(
        title="MedMitra cases",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[FieldsPlugin()],
        info={"description": _SERVICE.strip(), "license": {"name": "MIT", "identifier": "MIT"}},
        # Relative to this document: the service does not know below which path a proxy shows it.
        servers=[{"url": "."}],
    )
    for name, header in headers(needs_tokens=needs_tokens).items():
        spec.components.header(name, header)
    spec.path(
        PATH,
        operations={
            method: {
                "tags": ["Cases"],
                "operationId": name,
                "summary": summary,
                "description": description.strip(),
                "parameters": [{"in": "query", "schema": CASE_QUERY}, _IF_NONE_MATCH],
                "responses": responses(needs_tokens=needs_tokens, with_bodies=method == "get"),
                "security": [{_BEARER: []}] if needs_tokens else [],
            }
            for method, name, summary, description in (
                ("get", "get_all_cases", "All cases of a doctor", _CASES),
                ("head", "head_all_cases", "The same without the body", "As GET, but for the body."),
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
                "description": "The doctor's token alone, without the word `Bearer`;"
                f" at most {MAX_TOKEN_BYTES:,} bytes.",
            },
        )
    document: dict[str, Any] = spec.to_dict()
    return {"openapi": document.pop("openapi"), **document}  # what it is comes first
