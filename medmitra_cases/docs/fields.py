"""Translates marshmallow's fields, and the custom ones of this package, to JSON Schema."""

import re
from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import fields

from medmitra_cases.schemas import DateOrTime, UtcDateTime, empty_is_absent

_GROUP_NAME = re.compile(r"\?P<\w+>")


def json_pattern(pattern: str) -> str:
    r"""Translate a pattern that ``re.match`` uses and that ends with ``\Z``.

    Args:
        pattern: A regular expression of Python.

    Returns:
        The regular expression for JSON Schema (JavaScript's syntax), without group names.
    """
    return f"^{_GROUP_NAME.sub('', pattern).removesuffix(chr(92) + 'Z')}$"


class _Converter(OpenAPIConverter):
    """apispec's converter, with the custom fields and the aliases of parameters."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.field_mapping = {
            **self.field_mapping,
            DateOrTime: ("string", None),
            UtcDateTime: ("string", "date-time"),
        }
        self.add_attribute_function(_pattern)  # type: ignore[no-untyped-call]
        self.add_parameter_attribute_function(_alias)
        self.add_parameter_attribute_function(_allow_empty_value)
        self.add_parameter_attribute_function(_example)


class FieldsPlugin(MarshmallowPlugin):
    """apispec's plugin for marshmallow, with ``_Converter``."""

    Converter = _Converter


def _pattern(_: OpenAPIConverter, __: fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
    return {"pattern": json_pattern(ret["pattern"])} if "pattern" in ret else {}


def _alias(_: OpenAPIConverter, field: fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
    """Add the alias to the description. A separate parameter would suggest that both can be sent."""
    alias = field.metadata.get("alias")
    return {"description": f"{ret['description']} Other name: `{alias}`.", "x-alias": alias} if alias else {}


def _allow_empty_value(_: OpenAPIConverter, field: fields.Field[Any], **__: Any) -> dict[str, Any]:
    """Tell validators about empty values that the schema of the parameter does not allow."""
    return {"allowEmptyValue": True} if empty_is_absent(field) else {}


def _example(_: OpenAPIConverter, __: fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
    """Move the example from the schema to the parameter, as OpenAPI 3.1 requires."""
    return {"example": ret["schema"].pop("example")} if "example" in ret["schema"] else {}
