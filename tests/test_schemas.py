"""The fast way to dump cases gives what marshmallow's own gives, for any rows."""

import datetime as dt
import decimal
import json
import uuid
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from medmitra_cases.schemas import CaseSchema, CasesSchema, to_json
from tests.factories import KEYS

text = st.text(st.characters(exclude_categories=["Cs"]))
# What psycopg2 delivers for the contract's columns ...
delivered = st.tuples(
    *(st.uuids().map(str), st.uuids().map(str), text, st.integers(-(2**63), 2**63 - 1), text),
    *(st.none() | text, st.none() | text, st.none() | st.datetimes(), st.none() | st.datetimes()),
)
# ... and what it might, from a view whose columns have other types.
stranger = st.none() | st.uuids() | st.integers(0, 9) | st.booleans() | text
integral = st.none() | st.booleans() | st.decimals(0, 9, places=0) | st.floats(0, 9).map(round).map(float)
other = st.tuples(
    *(stranger, stranger, stranger, integral, stranger, stranger, stranger),
    *(st.none() | st.datetimes(), st.none() | st.datetimes()),
)


@given(st.lists(delivered) | st.lists(other) | st.lists(delivered | other))
def test_rows_are_dumped_as_marshmallow_dumps_them(rows: list[tuple[Any, ...]]) -> None:
    cases = [dict(zip(KEYS, row, strict=True)) for row in rows]
    fast = CasesSchema().dump_rows(rows)
    slow = CasesSchema().dump({"cases": cases})
    assert to_json(fast) == to_json(slow)
    assert [list(case) for case in fast["cases"]] == [list(KEYS)] * len(rows)


def test_a_column_is_serialized_where_one_value_needs_it() -> None:
    identifier = uuid.uuid4()
    row = (str(identifier), "", "", 1, "", None, None, None, None)
    odd = (identifier, "", "", decimal.Decimal(1), "", None, None, None, None)
    assert CaseSchema().dump_rows([row, odd]) == CaseSchema().dump_rows([row, row])


@given(st.datetimes())
def test_times_are_written_as_the_contract_has_them(moment: dt.datetime) -> None:
    assert json.loads(to_json([moment])) == [moment.isoformat() + "Z"]
