"""``dump_rows``, the fast way to serialize cases, gives the same result as marshmallow for any rows."""

import datetime as dt
import decimal
import json
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmitra_cases.schemas.case import CaseSchema, CasesSchema
from medmitra_cases.schemas.utc_datetime import UtcDateTime
from tests.support.factories import KEYS, UTC

text = st.text(st.characters(exclude_categories=["Cs"]))
integers = st.integers(-(2**63), 2**63 - 1)


def postgres_text(moment: dt.datetime) -> str:
    """A timestamp as Postgres writes it: ``2026-03-04 10:30:00.5``."""
    written = str(moment)
    return written.rstrip("0") if "." in written else written


# The two forms in which each column can arrive: the type of all its values, and a strategy that makes one.
TEXT, ANYTHING = (str, text), (object, st.uuids() | st.integers(0, 9) | st.booleans() | text)
NUMBER = (int, integers)
# marshmallow, too, converts the text of a number and a boolean to an integer.
NUMERIC = (object, st.booleans() | st.decimals(0, 9, places=0) | integers | st.integers(0, 99).map(str))
TIME = (str, st.datetimes().map(postgres_text))
MOMENT = (object, st.datetimes() | st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC)))
FORMS = [
    *((TEXT, ANYTHING),) * 3,
    (NUMBER, NUMERIC),
    *((TEXT, ANYTHING),) * 3,
    *((TIME, MOMENT),) * 2,
]


@st.composite
def database_rows(draw: st.DrawFn) -> tuple[list[tuple[Any, ...]], list[type]]:
    """Draw rows as the database may return them, with NULLs, and the types of their columns."""
    forms: list[Any] = [draw(st.sampled_from(column)) for column in FORMS]
    row = st.tuples(*(st.none() | values for _, values in forms))
    return draw(st.lists(row)), [kind for kind, _ in forms]


@given(database_rows())
def test_rows_are_dumped_as_marshmallow_dumps_them(
    rows_and_types: tuple[list[tuple[Any, ...]], list[type]],
) -> None:
    rows, types = rows_and_types
    slow = CasesSchema().dump({"cases": [dict(zip(KEYS, row, strict=True)) for row in rows]})
    fast = msgspec.json.encode(CasesSchema().dump_rows(rows, types))
    assert (
        fast
        == msgspec.json.encode(slow)
        == json.dumps(slow, ensure_ascii=False, separators=(",", ":")).encode()
    )
    assert [list(case) for case in json.loads(fast)["cases"]] == [list(KEYS)] * len(rows)


def test_values_of_other_types_are_converted_to_those_of_the_contract() -> None:
    identifier = uuid.uuid4()
    plain = (str(identifier), "", "", 1, "", None, None, None, None)
    odd = (identifier, "", "", decimal.Decimal(1), "", None, None, None, None)
    types = [str, str, str, int, str, str, str, str, str]
    assert msgspec.json.encode(CaseSchema().dump_rows([odd], [object] * 9)) == msgspec.json.encode(
        CaseSchema().dump_rows([plain], types)
    )


@given(st.datetimes())
def test_times_have_the_format_of_the_contract(moment: dt.datetime) -> None:
    assert UtcDateTime.serialize_texts([postgres_text(moment)]) == [moment.isoformat() + "Z"]


@pytest.mark.parametrize("text", ["infinity", "12026-03-04 10:30:00.123456", "2026-03-04", ""])
def test_a_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(KeyError):
        UtcDateTime.serialize_texts([text])
