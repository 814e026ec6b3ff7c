"""The fast way to dump cases gives what marshmallow's own gives, for any rows."""

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


# Every column in each form in which it may come: what all its values are, and how to make one ...
TEXT, ANYTHING = (str, text), (object, st.uuids() | st.integers(0, 9) | st.booleans() | text)
NUMBER = (int, integers)
# (marshmallow itself makes an integer of a number's text and of a truth value)
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
def deliveries(draw: st.DrawFn) -> tuple[list[tuple[Any, ...]], list[type]]:
    """Rows as the database may deliver them, with NULLs, and the types of their columns."""
    forms: list[Any] = [draw(st.sampled_from(column)) for column in FORMS]
    row = st.tuples(*(st.none() | values for _, values in forms))
    return draw(st.lists(row)), [kind for kind, _ in forms]


@given(deliveries())
def test_rows_are_dumped_as_marshmallow_dumps_them(
    delivery: tuple[list[tuple[Any, ...]], list[type]],
) -> None:
    rows, types = delivery
    slow = CasesSchema().dump({"cases": [dict(zip(KEYS, row, strict=True)) for row in rows]})
    fast = msgspec.json.encode(CasesSchema().dump_rows(rows, types))
    assert (
        fast
        == msgspec.json.encode(slow)
        == json.dumps(slow, ensure_ascii=False, separators=(",", ":")).encode()
    )
    assert [list(case) for case in json.loads(fast)["cases"]] == [list(KEYS)] * len(rows)


def test_values_of_other_types_become_those_of_the_contract() -> None:
    identifier = uuid.uuid4()
    plain = (str(identifier), "", "", 1, "", None, None, None, None)
    odd = (identifier, "", "", decimal.Decimal(1), "", None, None, None, None)
    types = [str, str, str, int, str, str, str, str, str]
    assert msgspec.json.encode(CaseSchema().dump_rows([odd], [object] * 9)) == msgspec.json.encode(
        CaseSchema().dump_rows([plain], types)
    )


@given(st.datetimes())
def test_times_are_written_as_the_contract_has_them(moment: dt.datetime) -> None:
    assert UtcDateTime.serialize_texts([postgres_text(moment)]) == [moment.isoformat() + "Z"]


@pytest.mark.parametrize("text", ["infinity", "12026-03-04 10:30:00.123456", "2026-03-04", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(KeyError):
        UtcDateTime.serialize_texts([text])
