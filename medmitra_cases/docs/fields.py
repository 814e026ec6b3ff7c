"""Describes marshmallow's fields, and ours, as JSON Schema has it."""

import re
from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import fields

from medmitra_cases.schemas import DateOrTime, UtcDateTime

_GROUP_NAME = re.compile(r"\?P<\w+>")


def json_pattern(pattern: str) -> str:
    r"""Rewrite a pattern that is matched from the start and ends with ``\Z``.

    Args:
        pattern: As Python's ``re`` has it.

    Returns:
        As JSON Schema has it, which is JavaScript's way; without the names of groups.
    """
    return f"^{_GROUP_NAME.sub('', pattern).removesuffix(chr(92) + 'Z')}$"


class _Converter(OpenAPIConverter):
    """apispec's converter, which also knows our kinds of fields, and that parameters have other names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.field_mapping = {
            **self.field_mapping,
            DateOrTime: ("string", None),
            UtcDateTime: ("string", "date-time"),
        }
        self.add_attribute_function(_pattern)  # type: ignore[no-untyped-call]
        self.add_parameter_attribute_function(_alias)
        self.add_parameter_attribute_function(_example)


class FieldsPlugin(MarshmallowPlugin):
    """apispec's plugin for marshmallow, with that converter."""

    Converter = _Converter


def _pattern(_: OpenAPIConverter, __: fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
    return {"pattern": json_pattern(ret["pattern"])} if "pattern" in ret else {}


def _alias(_: OpenAPIConverter, field: fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
    """Say the parameter's other name: as a parameter of its own it would seem that both can be given."""
    alias = field.metadata.get("alias")
    return {"description": f"{ret['description']} Also: `{alias}`.", "x-alias": alias} if alias else {}


def _example(_: OpenAPIConverter, __: fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
    """Move the example from the schema to where OpenAPI 3.1 wants it."""
    return {"example": ret["schema"].pop("example")} if "example" in ret["schema"] else {}
