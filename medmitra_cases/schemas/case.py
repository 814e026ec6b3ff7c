"""The cases of a response: the keys, their order and their types are those of the published contract."""

from collections.abc import Sequence
from typing import Any

import msgspec
from marshmallow import Schema, fields

from medmitra_cases.errors import UnservableColumn
from medmitra_cases.schemas.utc_datetime import UtcDateTime

_NULL_NOTE = "Null only if the writer of the row left it empty"
_TIME = (
    "In UTC, with `Z`, and with a fraction of six digits if there is one."
    f" {_NULL_NOTE}, or if the year is not from 1 to 9999."
)


class CaseSchema(Schema):
    """Contract, "200": the nine keys of a case, in order."""

    case_id = fields.String(required=True, metadata={"description": "The case's UUID."})
    user_id = fields.String(required=True, metadata={"description": "The doctor's UUID."})
    patient_name = fields.String(required=True, metadata={"description": "The patient's full name."})
    patient_age = fields.Integer(required=True, metadata={"description": "In years."})
    patient_gender = fields.String(
        required=True, metadata={"description": "As the case's writer entered it."}
    )
    case_summary = fields.String(
        required=True, allow_none=True, metadata={"description": "A summary, or the doctor's notes."}
    )
    status = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "Usually `pending`, `analyzing`, `processing`, `completed` or `failed`, but any"
            f" text is passed through. {_NULL_NOTE}.",
            "examples": ["pending", "analyzing", "processing", "completed", "failed"],
        },
    )
    created_at = UtcDateTime(required=True, allow_none=True, metadata={"description": _TIME})
    updated_at = UtcDateTime(required=True, allow_none=True, metadata={"description": _TIME})

    def dump_rows(self, rows: Sequence[tuple[Any, ...]], types: Sequence[type]) -> list[msgspec.Struct]:
        """Dump many cases: the same JSON as ``dump(…, many=True)``, many times as fast.

        Postgres delivers text and integers in their JSON type. Only times are serialized, column by column.

        Args:
            rows: One tuple for each case, its values in the order of the fields; more values are ignored.
            types: For each column the type of all its values that are not None; ``object`` if it is unknown.

        Returns:
            One object for each case, to be encoded by msgspec; its attributes are the fields, in order.

        Raises:
            UnservableColumn: A column does not have the type of its field.
        """
        columns = [
            _serialize_column(field, name, kind, column)
            for (name, field), kind, column in zip(
                self.dump_fields.items(), types, zip(*rows, strict=True), strict=False
            )
        ]
        return list(map(_Case, *columns)) if rows else []


def _serialize_column(
    field: fields.Field[Any], name: str, kind: type, column: tuple[Any, ...]
) -> Sequence[Any]:
    if kind is not _TYPES[type(field)]:
        raise UnservableColumn(name, "the type of this column is not the one that the response needs")
    if not isinstance(field, UtcDateTime):
        return column
    try:
        return field.serialize_texts(column)
    except ValueError as error:
        raise UnservableColumn(name, str(error)) from None


# The type of the values that each field serializes: another one would become a text that only looks right.
_TYPES = {fields.String: str, fields.Integer: int, UtcDateTime: str}

# A struct is made in a tenth of the time of a dictionary, and the garbage collector does not examine it.
_Case = msgspec.defstruct("_Case", list(CaseSchema().dump_fields), gc=False)


class CaseListSchema(Schema):
    """Contract, "200": all cases of one doctor, in insertion order."""

    case = CaseSchema()
    cases = fields.List(fields.Nested(case), required=True)

    def dump_rows(
        self, rows: Sequence[tuple[Any, ...]], types: Sequence[type]
    ) -> dict[str, list[msgspec.Struct]]:
        """Dump the whole list; arguments, result and errors as in ``CaseSchema.dump_rows``."""
        return {"cases": self.case.dump_rows(rows, types)}
