"""The one error body there is."""

import msgspec
from marshmallow import Schema, fields


class ErrorSchema(Schema):
    """Contract, "Errors": one string."""

    detail = fields.String(required=True, metadata={"description": "What is wrong, in one sentence."})


_ERROR = ErrorSchema()


def error_body(detail: str) -> bytes:
    """Write the one kind of error body there is.

    Args:
        detail: One sentence for the client.

    Returns:
        The JSON, as ``ErrorSchema`` has it.
    """
    return msgspec.json.encode(_ERROR.dump({"detail": detail}))
