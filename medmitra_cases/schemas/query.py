"""The query parameters: their names, types and meanings."""

from collections.abc import Mapping
from datetime import time
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, pre_load

from medmitra_cases import contract
from medmitra_cases.models import DEFAULT_LIMIT, MAX_LIMIT, SORT_COLUMNS
from medmitra_cases.schemas.query_fields import (
    MAX_TEXT_LENGTH,
    MAX_TEXTS,
    DateOrTime,
    IntegerParameter,
    Text,
    Texts,
    UserId,
    empty_is_absent,
    one_of,
    uuid,
)

# Beyond any age or page number; multiplied by MAX_LIMIT it is still a bigint.
_NINE_DIGITS = 999_999_999

_DATE_OR_TIME = (
    "a date (`2026-03-04`: that whole day in UTC), or a time with its offset (`2026-03-04T10:30:00+05:30`)."
)
_UP_TO = f"Up to {MAX_TEXT_LENGTH} characters."
_REPEATED = f"{_UP_TO} Given several times, up to {MAX_TEXTS}, it selects the cases with any of the texts."


def _names(name: str, field: fields.Field[Any]) -> list[str]:
    """List the name of a parameter, and its alias if it has one."""
    return [name, *filter(None, [field.metadata.get("alias")])]


class CaseQuerySchema(Schema):
    """All parameters, each given at most once, except lists of texts. Other parameters are ignored.

    Loads ``{name: [value, …]}``: every value that a client sent for a name. The metadata of a field has the
    description for the documentation, and may have an alias, another name of the same parameter.
    """

    class Meta:
        """Options read by marshmallow."""

        unknown = EXCLUDE

    user_id = UserId("The UUID of the doctor whose cases to return.", example=contract.USER_ID)
    status = Texts(f"Only cases with exactly this status, such as `completed`. {_REPEATED}")
    gender = Texts(f"Only patients of exactly this gender. {_REPEATED}")
    search = Text(
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
    updated_since = DateOrTime(
        f"Only cases changed then or later (`updated_at`): {_DATE_OR_TIME}", time.min, alias="updatedSince"
    )
    sort_by = one_of(
        "The order. Nulls come last, equal values in insertion order. Without it, insertion order.",
        *SORT_COLUMNS,
        alias="sortBy",
    )
    sort_order = one_of(
        "`desc` reverses the order, except nulls and equal values. Without it, `asc`.",
        *("asc", "desc"),
        alias="sortOrder",
    )
    limit = IntegerParameter(
        f"The number of cases on a page, 1 to {MAX_LIMIT:,}. Without `limit` and `page` the response is the"
        " whole list.",
        1,
        MAX_LIMIT,
    )
    page = IntegerParameter(
        f"The number of the page, from 1. Without `limit` a page has {DEFAULT_LIMIT} cases.", 1, _NINE_DIGITS
    )
    after = uuid(
        "Only cases after the case with this `case_id`: in the list or, with `sort_by`, in insertion order."
        " It must be one of the doctor's cases."
    )

    @pre_load
    def take_single_value(self, parameters: Mapping[str, list[str]], **_: Any) -> dict[str, str | list[str]]:
        """Replace each list of values by its one value, except those of ``Texts``.

        Args:
            parameters: Every value of every parameter, by name.

        Returns:
            The values of each declared parameter that was sent, unless it is empty and counts as absent.

        Raises:
            ValidationError: A declared parameter that takes one value was sent more than once.
        """
        sent = {
            name: [value for known in _names(name, field) for value in parameters.get(known, ())]
            for name, field in self.load_fields.items()
        }
        repeated = {
            name: [f"must be given once, not {len(values)} times"]
            for name, values in sent.items()
            if len(values) > 1 and not isinstance(self.load_fields[name], Texts)
        }
        if repeated:
            raise ValidationError(repeated)
        return {
            name: values if isinstance(self.load_fields[name], Texts) else values[0]
            for name, values in sent.items()
            if values and (values[0] or not empty_is_absent(self.load_fields[name]))
        }

    def handle_error(self, error: ValidationError, data: Mapping[str, list[str]], **_: Any) -> None:
        """Raise the error again with the names that the client sent."""
        names = {name: field.metadata.get("alias") for name, field in self.load_fields.items()}
        raise ValidationError(
            {
                (names[name] if name not in data and names[name] in data else name): messages
                for name, messages in error.messages_dict.items()
            }
        )


# Built once: marshmallow copies every field each time a schema is made.
CASE_QUERY = CaseQuerySchema()

# Every parameter, by each of its names.
PARAMETERS: Mapping[str, fields.Field[Any]] = {
    known: field for name, field in CASE_QUERY.load_fields.items() for known in _names(name, field)
}
