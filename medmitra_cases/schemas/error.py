"""The body of every error."""

import msgspec
from marshmallow import Schema, fields


class ErrorSchema(Schema):
    """Contract, "Errors": one string."""

    detail = fields.String(required=True, metadata={"description": "What is wrong, in one sentence."})


_ERROR = ErrorSchema()


def error_body(detail: str) -> bytes:
    """Encode the body of an error.

    Args:
        detail: One sentence for the client.

    Returns:
        The JSON.
    """
    return msgspec.json.encode(_ERROR.dump({"detail": detail}))
