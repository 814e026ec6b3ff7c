"""The types of values that settings have."""

from typing import Any

from marshmallow import fields, validate

from medmitra_cases.settings import rules


def number(
    kind: type[fields.Field[Any]], default: float, minimum: float, maximum: float, **kwargs: Any
) -> Any:
    """Describe a setting that is a number.

    Args:
        kind: The marshmallow field for integers or for floats.
        default: The value if the variable is not set.
        minimum: The smallest allowed value.
        maximum: The largest allowed value.
        **kwargs: Further arguments of the marshmallow field.

    Returns:
        The field.
    """
    out_of_range = f"must be between {minimum} and {maximum}"
    return kind(
        load_default=default,
        validate=validate.Range(minimum, maximum, error=out_of_range),
        error_messages={"invalid": "must be a number", "too_large": out_of_range, "special": out_of_range},
        **kwargs,
    )


def boolean(name: str, meaning: str, *, default: bool = False) -> fields.Boolean:
    """Describe a setting that is true or false.

    Args:
        name: The environment variable.
        meaning: The help text.
        default: The value if the variable is not set.

    Returns:
        The field.
    """
    return fields.Boolean(
        data_key=name,
        load_default=default,
        error_messages={"invalid": "must be true or false"},
        metadata={"help": meaning},
    )


class Origins(fields.Field[tuple[str, ...]]):
    """A comma-separated list of origins."""

    def _deserialize(self, value: str, *_: Any, **__: Any) -> tuple[str, ...]:
        rules.must_be_bare(value)
        origins = tuple(origin.strip() for origin in value.split(","))
        for origin in origins:
            rules.must_be_origin(origin)
        return origins


class FieldNames(fields.Field[tuple[str, ...]]):
    """A comma-separated list of header field names."""

    def _deserialize(self, value: str, *_: Any, **__: Any) -> tuple[str, ...]:
        names = tuple(name.strip() for name in value.split(","))
        for name in names:
            rules.must_be_field_name(name)
        return names


class OptionalAddress(fields.Field[str | None]):
    """``HOST:PORT``, or ``off`` for None."""

    def _deserialize(self, value: str, *_: Any, **__: Any) -> str | None:
        if value == "off":
            return None
        rules.must_be_listen_address(value)
        return value
