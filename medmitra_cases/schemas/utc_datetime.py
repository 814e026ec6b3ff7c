"""The marshmallow field for the times of the contract."""

import datetime as dt
from collections.abc import Iterable
from typing import Any

from marshmallow import fields


class UtcDateTime(fields.Field[str]):
    """A time in UTC without an offset, serialized as RFC 3339, section 5.6, with ``Z``.

    The value is text as Postgres writes it (``2026-03-04 10:30:00.5``), or a ``datetime``.
    """

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        if isinstance(value, dt.datetime) and value.tzinfo is not None:
            value = value.astimezone(dt.timezone.utc).replace(tzinfo=None)
        return None if value is None else self.serialize_texts([str(value)])[0]

    @staticmethod
    def serialize_texts(column: Iterable[str | None]) -> list[str | None]:
        """Serialize a column at once; a call for each value would cost more than the work itself.

        Args:
            column: Times as Postgres writes them, in the years 1 to 9999, which the table or view guarantees.

        Returns:
            The times as RFC 3339, with a fraction of six digits if there is one.

        Raises:
            KeyError: The length of a value is not that of such a time.
        """
        return [None if text is None else text.replace(" ", "T") + _ENDINGS[len(text)] for text in column]


# The missing end of a time, by the length of its text: Postgres drops the zeros at the end of a fraction.
_ENDINGS = {len("2026-03-04 10:30:00"): "Z"} | {
    len("2026-03-04 10:30:00.") + digits: "0" * (6 - digits) + "Z" for digits in range(1, 7)
}
