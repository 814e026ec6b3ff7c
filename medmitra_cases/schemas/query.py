"""The query parameters: their names, and what each may be."""

from collections.abc import Mapping
from datetime import time
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, pre_load

from medmitra_cases import contract
from medmitra_cases.models import DEFAULT_LIMIT, MAX_LIMIT, SORT_COLUMNS
from medmitra_cases.schemas.query_fields import (
    MAX_TEXT_LENGTH,
    DateOrTime,
    IntegerParameter,
    one_of,
    text,
    uuid,
)

# Beyond any age and page; times MAX_LIMIT it is still a bigint.
_NINE_DIGITS = 999_999_999

_DATE_OR_TIME = (
    "a date (`2026-03-04`: that whole day in UTC), or a time with its offset (`2026-03-04T10:30:00+05:30`)."
)
_UP_TO = f"Up to {MAX_TEXT_LENGTH} characters."


def _names(name: str, field: fields.Field[Any]) -> list[str]:
    """List the name of a parameter, and its alias if it has one."""
    return [name, *filter(None, [field.metadata.get("alias")])]


class CaseQuerySchema(Schema):
    """All parameters there are, each given at most once; others are ignored.

    Loads ``{name: [value, …]}``, every value a client sent for a name. A field's metadata holds what the
    documentation says of it, and may hold an alias, another name of the same parameter.
    """

    class Meta:
        """Options read by marshmallow."""

        unknown = EXCLUDE

    user_id = uuid("The UUID of the doctor whose cases to return.", required=True, example=contract.USER_ID)
    status = text(f"Only cases with exactly this status, such as `completed`. {_UP_TO}")
    gender = text(f"Only patients of exactly this gender. {_UP_TO}")
    search = text(
        "Only cases with this text in the patient's name, the summary or the case's id, in capital or small"
        f" letters. {_UP_TO}"
    )
    min_age = IntegerParameter(
        "Only patients of this age or older.", -_NINE_DIGITS, _NINE_DIGITS, alias="minAge"
    )
    max_age = IntegerParameter(
        "Only patients of this age or younger.", -_NINE_DIGITS, _NINE_DIGITS, alias="maxAge"
    )
    start_date = DateOrTime(f"Only cases created then or later: {_DATE_OR_TIME}", time.min, alias="startDate")
    end_date = DateOrTime(f"Only cases created then or earlier: {_DATE_OR_TIME}", time.max, alias="endDate")
    sort_by = one_of(
        "The order, with nulls last and ties in the order of insertion. Without it, the order of insertion.",
        *SORT_COLUMNS,
        alias="sortBy",
    )
    sort_order = one_of(
        "`desc` is the other way round, but for nulls and ties. Without it, `asc`.",
        *("asc", "desc"),
        alias="sortOrder",
    )
    limit = IntegerParameter(
        f"How many cases a page has, 1 to {MAX_LIMIT:,}. Without `limit` and `page` the answer is the whole"
        " list.",
        1,
        MAX_LIMIT,
    )
    page = IntegerParameter(
        f"Which page, from 1. Without `limit` a page has {DEFAULT_LIMIT} cases.", 1, _NINE_DIGITS
    )
    after = uuid(
        "Only what comes after the case with this `case_id`: in the list or, with `sort_by`, in the order of"
        " insertion. It must be one of the doctor's."
    )

    @pre_load
    def take_single_value(self, parameters: Mapping[str, list[str]], **_: Any) -> dict[str, str]:
        """Turn each list of values into its one value.

        Args:
            parameters: Every value of every parameter, by name.

        Returns:
            The value of each declared parameter that was sent.

        Raises:
            ValidationError: A declared parameter was sent more than once.
        """
        sent = {
            name: [value for known in _names(name, field) for value in parameters.get(known, ())]
            for name, field in self.load_fields.items()
        }
        repeated = {
            name: [f"must be given once, not {len(values)} times"]
            for name, values in sent.items()
            if len(values) > 1
        }
        if repeated:
            raise ValidationError(repeated)
        return {name: values[0] for name, values in sent.items() if values}

    def handle_error(self, error: ValidationError, data: Mapping[str, list[str]], **_: Any) -> None:
        """Name each parameter as the client did.

        Args:
            error: What is wrong, by the names of the fields.
            data: What was to be loaded.

        Raises:
            ValidationError: The same, by the names that were sent.
        """
        names = {name: field.metadata.get("alias") for name, field in self.load_fields.items()}
        raise ValidationError(
            {
                (names[name] if name not in data and names[name] in data else name): messages
                for name, messages in error.messages_dict.items()
            }
        )


# Built once: marshmallow copies every field each time a schema is made.
CASE_QUERY = CaseQuerySchema()

# Every name that asks for more than the published contract has.
OPTIONAL_NAMES = frozenset(
    known
    for name, field in CASE_QUERY.load_fields.items()
    if name != "user_id"
    for known in _names(name, field)
)
