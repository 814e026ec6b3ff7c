"""The values that a test passes to the harness, as JSON."""

import operator
from datetime import date
from typing import Any, SupportsIndex
from uuid import UUID

import msgspec

from medmitra_cases.testing.errors import HarnessError


def encode_command(command: dict[str, Any]) -> bytes:
    """Encode a command with the values of a test.

    Args:
        command: The command and its arguments.

    Returns:
        The JSON, without a line break.

    Raises:
        HarnessError: JSON cannot have a value.
    """
    __tracebackhide__ = True
    try:
        return msgspec.json.encode(command, enc_hook=_simplify)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise HarnessError(f"a value cannot be sent as JSON: {error}") from None


def _simplify(value: object) -> object:
    """Convert a value of a subclass, which msgspec refuses, such as a time of a faked clock."""
    match value:
        case str():
            return str.__str__(value)
        case SupportsIndex():
            return operator.index(value)
        case date():
            return value.isoformat()
        case UUID():
            return UUID.__str__(value)
    raise TypeError(f"it is of the type {type(value).__name__}")
