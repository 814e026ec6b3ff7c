"""What comes in and what goes out: the query, the cases, the error body.

The keys, their order and their types are those of the published contract.
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from marshmallow import EXCLUDE, Schema, ValidationError, fields, pre_load, validate

# uuid.UUID() also takes braces, urn:uuid:, no dashes and other scripts' digits; the contract takes one form.
CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII | re.IGNORECASE)


class QuerySchema(Schema):
    """Query parameters, each given at most once; those a schema does not declare are ignored.

    Loads ``{name: [value, …]}``, every value a client sent for a name.
    """

    class Meta:
        """Options read by marshmallow."""

        unknown = EXCLUDE

    @pre_load
    def take_the_only_value(self, parameters: Mapping[str, list[str]], **_: Any) -> dict[str, str]:
        """Turn each list of values into its one value.

        Args:
            parameters: Every value of every parameter, by name.

        Returns:
            The value of each declared parameter that was sent.

        Raises:
            ValidationError: A declared parameter was sent more than once.
        """
        sent = {name: parameters[name] for name in self.load_fields if name in parameters}
        repeated = {
            name: [f"must be given once, not {len(values)} times"]
            for name, values in sent.items()
            if len(values) > 1
        }
        if repeated:
            raise ValidationError(repeated)
        return {name: values[0] for name, values in sent.items()}


class CasesQuerySchema(QuerySchema):
    """Contract, "Request": whose cases to retrieve."""

    user_id = fields.String(
        required=True,
        validate=validate.Regexp(
            CANONICAL_UUID, error="must be a UUID written like b8acad4b-4944-4d66-b405-de70886e7248"
        ),
        error_messages={"required": "is missing"},
    )


class UtcDateTime(fields.NaiveDateTime):
    """A datetime without an offset, known to be UTC. It is left to ``to_json``, which writes RFC 3339."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return value


class CaseSchema(Schema):
    """Contract, "200": the nine keys of a case, in order."""

    case_id = fields.String(required=True)
    user_id = fields.String(required=True)
    patient_name = fields.String(required=True)
    patient_age = fields.Integer(required=True)
    patient_gender = fields.String(required=True)
    case_summary = fields.String(required=True, allow_none=True)
    status = fields.String(required=True, allow_none=True)
    created_at = UtcDateTime(required=True, allow_none=True)
    updated_at = UtcDateTime(required=True, allow_none=True)

    def dump_rows(self, rows: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
        """Dump many cases at once: the same as ``dump(…, many=True)``, several times as fast.

        The fields' own serializers run, but column by column, and not at all over a column of values that
        they would return as they are.

        Args:
            rows: One tuple per case, its values in the order of the fields.

        Returns:
            One dictionary per case, its keys in the order of the fields.
        """
        columns = [
            column
            if _KEPT.get(type(field), _NOTHING).issuperset(map(type, column))
            else _serialize(field, name, column)
            for (name, field), column in zip(self.dump_fields.items(), zip(*rows, strict=True), strict=False)
        ]
        names = tuple(self.dump_fields)
        # Not strict, which would cost a quarter of this line: all rows of one SELECT are of one length.
        return [dict(zip(names, values)) for values in zip(*columns)]  # noqa: B905


_NOTHING: frozenset[type] = frozenset()
# The types of value that each kind of field serializes as they are; psycopg2 delivers hardly any other.
_KEPT: dict[type[fields.Field[Any]], frozenset[type]] = {
    fields.String: frozenset({str, type(None)}),
    fields.Integer: frozenset({int, type(None)}),
    UtcDateTime: frozenset({dt.datetime, type(None)}),
}


def _serialize(field: fields.Field[Any], name: str, column: tuple[Any, ...]) -> list[Any]:
    return [field._serialize(value, name, None) for value in column]


class CasesSchema(Schema):
    """Contract, "200": all cases of one doctor, in insertion order."""

    _case = CaseSchema()
    cases = fields.List(fields.Nested(_case), required=True)

    def dump_rows(self, rows: Iterable[tuple[Any, ...]]) -> dict[str, list[dict[str, Any]]]:
        """Dump all cases at once, see ``CaseSchema.dump_rows``.

        Args:
            rows: One tuple per case, its values in the order of the fields of ``CaseSchema``.

        Returns:
            The same as ``dump`` of the same cases.
        """
        return {"cases": self._case.dump_rows(rows)}


class ErrorSchema(Schema):
    """Contract, "Errors": one string."""

    detail = fields.String(required=True)


def describe_invalid(error: ValidationError) -> str:
    """Say in one line what is wrong with which name, without repeating a value.

    Args:
        error: What a schema of flat fields raised; its messages continue a sentence begun with the name.

    Returns:
        For example ``user_id is missing``; several mistakes are joined by ``; ``.
    """
    return "; ".join(
        f"{name} {message}" for name, messages in error.messages_dict.items() for message in messages
    )


def to_json(dumped: object) -> bytes:
    """Write what a schema dumped.

    Args:
        dumped: Dictionaries, lists and plain values; datetimes without an offset count as UTC.

    Returns:
        JSON in UTF-8; times as RFC 3339 with ``Z``, a fraction to the microsecond, none where it is zero.
    """
    return orjson.dumps(dumped, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z)
