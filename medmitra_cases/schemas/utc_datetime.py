"""The marshmallow field for the times of the contract."""

import datetime as dt
import re
from collections.abc import Sequence
from typing import Any

from marshmallow import fields


class UtcDateTime(fields.Field[str]):
    """A time in UTC without an offset, serialized as RFC 3339, section 5.6, with ``Z``.

    The value is a ``datetime``, or text as Postgres writes it with ``DateStyle = ISO``:
    ``2026-03-04 10:30:00.5``. RFC 3339 has only the years 1 to 9999, so infinity and all other years become
    None.
    """

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        if isinstance(value, dt.datetime) and value.tzinfo is not None:
            value = value.astimezone(dt.timezone.utc).replace(tzinfo=None)
        return self.serialize_texts([None if value is None else str(value)])[0]

    @staticmethod
    def serialize_texts(column: Sequence[str | None]) -> Sequence[str | None]:
        """Serialize a column at once; a call for each value would cost more than the work itself.

        Args:
            column: Times as Postgres writes them.

        Returns:
            The times as RFC 3339, with a fraction of six digits if there is one.

        Raises:
            ValueError: A value is not such a time. The message does not contain it.
        """
        alike = None if None in column else _serialize_alike(column)
        if alike is not None:
            return alike
        try:
            # Characters 4 and 19 show other formats and longer years, the last one shows years BC. A regular
            # expression would take three times as long.
            return [
                None
                if text is None
                else text.replace(" ", "T") + _ENDINGS[len(text)]
                if text[4:20:15] in _MARKS and text[-1] != "C"
                else _other_year(text)
                for text in column
            ]
        except KeyError:
            raise ValueError(_NO_TIME) from None


def _serialize_alike(column: Sequence[Any]) -> list[str] | None:
    """Serialize times that all have six digits after the point, in half the time; None if some have not."""
    texts, count = "\n".join(column), len(column)
    # Each character of a time is _WIDTH before the same one of the next.
    if (
        len(texts) == count * _WIDTH - 1
        and texts[4::_WIDTH] == "-" * count
        and texts[19::_WIDTH] == "." * count
        and texts[26::_WIDTH] == "\n" * (count - 1)
        and "C" not in texts
    ):
        return (texts.replace(" ", "T").replace("\n", "Z\n") + "Z").split("\n")
    return None


def _other_year(text: str) -> str | None:
    if not _OTHER_YEAR.fullmatch(text):
        raise ValueError(_NO_TIME)
    return None


_NO_TIME = "a value is not a time as Postgres writes it with DateStyle = ISO"

# Infinity, the years from 10000, and the years BC.
_OTHER_YEAR = re.compile(r"-?infinity|\d{5,}-[\d :.-]+|\d{4,}-[\d :.-]+ BC", re.ASCII)

# The characters of a time with six digits after the point, and of a line break.
_WIDTH = len("2026-03-04 10:30:00.123456\n")

# The characters 4 and 19 of a time without and with a fraction.
_MARKS = frozenset({"-", "-."})

# The missing end of a time, by the length of its text: Postgres drops the zeros at the end of a fraction.
_ENDINGS = {len("2026-03-04 10:30:00"): "Z"} | {
    len("2026-03-04 10:30:00.") + digits: "0" * (6 - digits) + "Z" for digits in range(1, 7)
}
