"""The types of query parameters: how clients write them, and the values they become."""

import re
from datetime import datetime, time, timezone
from typing import Any

from marshmallow import fields, validate

# uuid.UUID() also takes braces, urn:uuid:, no dashes and other scripts' digits; the contract has one form.
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
UUID_RULE = "must be a UUID written like b8acad4b-4944-4d66-b405-de70886e7248"

# The links of a page repeat it, and the header buffers of proxies have only a few kB.
MAX_TEXT_LENGTH = 100
# How often a parameter may be given that takes several texts.
MAX_TEXTS = 20

# Nine digits fit into an integer of Postgres, and sums of such integers into a bigint.
_INTEGER = re.compile(r"-?[0-9]{1,9}\Z", re.ASCII)

_DATE = r"(?!0000)\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_MINUTE = r"([01]\d|2[0-3]):[0-5]\d"
_SECOND = r":[0-5]\d"
_DATE_OR_TIME = re.compile(
    rf"(?P<date>{_DATE})(T(?P<minute>{_MINUTE})((?P<second>{_SECOND})(\.(?P<fraction>\d{{1,6}}))?)?"
    rf"(?P<offset>Z|[+-]{_MINUTE}))?\Z",
    re.ASCII,
)
_DATE_OR_TIME_RULE = (
    "must be a date like 2026-03-04, or a time with its offset like 2026-03-04T10:30:00Z (in a URL + is %2B)"
)


def canonical_uuid(value: str) -> str | None:
    """Check a UUID. Every user_id is checked here: of a query, of a token, of the test harness.

    Args:
        value: The text.

    Returns:
        The UUID in lower case; None if the text is no UUID in canonical form.
    """
    return value.lower() if _UUID.match(value) else None


class UserId(fields.String):
    """A doctor's UUID, in lower case whatever the client sends."""

    def __init__(self, meaning: str, **metadata: Any) -> None:
        """Describe the parameter, which is required.

        Args:
            meaning: Its description.
            **metadata: More metadata for the documentation.
        """
        super().__init__(
            required=True,
            error_messages={"required": "is missing", "invalid": UUID_RULE},
            metadata={"description": meaning, "pattern": _UUID.pattern, **metadata},
        )

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        user_id = canonical_uuid(value)
        if user_id is None:
            raise self.make_error("invalid")
        return user_id


class IntegerParameter(fields.Integer):
    """An integer in decimal digits; ``int()`` also takes blanks, underscores and other scripts' digits."""

    def __init__(self, meaning: str, minimum: int, maximum: int, alias: str | None = None) -> None:
        """Set the range.

        Args:
            meaning: The description.
            minimum: The minimum.
            maximum: The maximum, of at most nine digits.
            alias: Another name of the parameter.
        """
        rule = f"must be an integer from {minimum} to {maximum}"
        super().__init__(
            validate=validate.Range(minimum, maximum, error=rule),
            error_messages={"invalid": rule},
            metadata={"description": meaning, "alias": alias},
        )

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if not _INTEGER.match(value):
            raise self.make_error("invalid")
        number: int = super()._deserialize(value, *args, **kwargs)
        return number


class DateOrTime(fields.Field[datetime]):
    """A point in time (RFC 3339 with an offset), or a date, which stands for a point of that day in UTC."""

    default_error_messages = {"invalid": _DATE_OR_TIME_RULE}  # noqa: RUF012, marshmallow's own form

    def __init__(self, meaning: str, time_of_date: time, alias: str | None = None) -> None:
        """Set the point that a date stands for.

        Args:
            meaning: The description.
            time_of_date: The time of day in UTC.
            alias: Another name of the parameter.
        """
        super().__init__(metadata={"description": meaning, "alias": alias, "pattern": _DATE_OR_TIME.pattern})
        self._time_of_date = time_of_date

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> datetime:
        match = _DATE_OR_TIME.match(value)
        if match is None:
            raise self.make_error("invalid")
        part = match.groupdict()
        try:
            if part["minute"] is None:
                day = datetime.fromisoformat(part["date"]).date()
                return datetime.combine(day, self._time_of_date, timezone.utc)
            # Python 3.10 takes only fractions of three or six digits, and no Z.
            fraction = (part["fraction"] or "").ljust(6, "0")
            offset = part["offset"].replace("Z", "+00:00")
            written = f"{part['date']}T{part['minute']}{part['second'] or ':00'}.{fraction}{offset}"
            return datetime.fromisoformat(written).astimezone(timezone.utc)
        except (ValueError, OverflowError):  # the 30th of February; a year that in UTC is 0 or 10000
            raise self.make_error("invalid") from None


class Text(fields.String):
    """Any short text that Postgres can store. The empty text is a value."""

    def __init__(self, meaning: str) -> None:
        """Set the rules.

        Args:
            meaning: The description.
        """
        super().__init__(
            validate=[
                validate.Length(
                    max=MAX_TEXT_LENGTH, error=f"must be at most {MAX_TEXT_LENGTH} characters long"
                ),
                validate.Regexp(r"[^\x00]*\Z", error="must not contain the character U+0000"),
            ],
            metadata={"description": meaning},
        )


class Texts(fields.List[Any]):
    """One or more texts, one for each time that the parameter is given."""

    def __init__(self, meaning: str) -> None:
        """Set the rules.

        Args:
            meaning: The description.
        """
        super().__init__(
            Text(f"Up to {MAX_TEXT_LENGTH} characters."),
            validate=validate.Length(max=MAX_TEXTS, error=f"must be given at most {MAX_TEXTS} times"),
            metadata={"description": meaning},
        )

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        """Return a tuple, so that queries can be keys. The messages do not depend on the position."""
        return tuple(map(self.inner.deserialize, value))


def empty_is_absent(field: fields.Field[Any]) -> bool:
    """Tell whether an empty value counts as absent. Forms send one for each filter that is not filled in.

    Args:
        field: The field of the parameter.

    Returns:
        True, unless the parameter is required, or a text, which may be empty.
    """
    return not (field.required or isinstance(field, (Text, Texts)))


def uuid(meaning: str, *, required: bool = False) -> fields.String:
    """Make a parameter that is a UUID in canonical form. Its case is kept: a column of text tells it apart.

    Args:
        meaning: Its description.
        required: Whether it must be given.

    Returns:
        The field.
    """
    return fields.String(
        required=required,
        validate=validate.Regexp(_UUID, error=UUID_RULE),
        error_messages={"required": "is missing"},
        metadata={"description": meaning},
    )


def one_of(meaning: str, *choices: str, alias: str) -> fields.String:
    """Make a parameter that has one of a few values.

    Args:
        meaning: Its description.
        *choices: The values.
        alias: Another name of the parameter.

    Returns:
        The field.
    """
    *others, last = choices
    return fields.String(
        validate=validate.OneOf(choices, error=f"must be {', '.join(others)} or {last}"),
        metadata={"description": meaning, "alias": alias},
    )
