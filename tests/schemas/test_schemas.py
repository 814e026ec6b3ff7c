"""``dump_rows``, the fast way to serialize cases, gives the same result as marshmallow for any rows."""

import datetime as dt
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmitra_cases.errors import UnservableColumn
from medmitra_cases.schemas.case import CaseListSchema, CaseSchema
from medmitra_cases.schemas.utc_datetime import UtcDateTime
from tests.support.factories import KEYS

text = st.text(st.characters(exclude_categories=["Cs"]))
integers = st.integers(-(2**63), 2**63 - 1)


def postgres_text(moment: dt.datetime) -> str:
    """A timestamp as Postgres writes it: ``2026-03-04 10:30:00.5``."""
    written = str(moment)
    return written.rstrip("0") if "." in written else written


TEXT, NUMBER, TIME = (str, text), (int, integers), (str, st.datetimes().map(postgres_text))
COLUMNS: list[tuple[type, Any]] = [*(TEXT,) * 3, NUMBER, *(TEXT,) * 3, *(TIME,) * 2]
TYPES = [kind for kind, _ in COLUMNS]


@given(st.lists(st.tuples(*(st.none() | values for _, values in COLUMNS))))
def test_rows_are_dumped_as_marshmallow_dumps_them(rows: list[tuple[Any, ...]]) -> None:
    slow = CaseListSchema().dump({"cases": [dict(zip(KEYS, row, strict=True)) for row in rows]})
    fast = msgspec.json.encode(CaseListSchema().dump_rows(rows, TYPES))
    assert (
        fast
        == msgspec.json.encode(slow)
        == json.dumps(slow, ensure_ascii=False, separators=(",", ":")).encode()
    )
    assert [list(case) for case in json.loads(fast)["cases"]] == [list(KEYS)] * len(rows)


@pytest.mark.parametrize("column", range(9), ids=KEYS)
@pytest.mark.parametrize("kind", [object, float, bytes])
def test_a_column_of_another_type_is_refused(column: int, kind: type) -> None:
    """Its values could be written, but would not be what the contract says: no client could tell."""
    row = ("", "", "", 1, "", None, None, None, None)
    types = [*TYPES[:column], kind, *TYPES[column + 1 :]]
    with pytest.raises(UnservableColumn) as raised:
        CaseSchema().dump_rows([row], types)
    assert f"medmitra.cases.{KEYS[column]}: " in raised.value.log_text()


@given(st.datetimes(), st.sampled_from([dt.timezone.utc, dt.timezone(dt.timedelta(hours=1))]))
def test_datetimes_are_converted_to_utc(moment: dt.datetime, zone: dt.timezone) -> None:
    moment = min(max(moment, dt.datetime(2, 1, 1)), dt.datetime(9999, 1, 1))
    row = dict.fromkeys(KEYS, "") | {"patient_age": 1, "created_at": moment, "updated_at": None}
    aware = row | {"created_at": moment.replace(tzinfo=dt.timezone.utc).astimezone(zone)}
    assert CaseSchema().dump(row) == CaseSchema().dump(aware)
    assert CaseSchema().dump(row)["created_at"] == moment.isoformat() + "Z"


@given(st.datetimes())
def test_times_have_the_format_of_the_contract(moment: dt.datetime) -> None:
    assert UtcDateTime.serialize_texts([postgres_text(moment)]) == [moment.isoformat() + "Z"]


# As Postgres writes them with DateStyle = ISO.
OTHER_YEARS = [
    *(
        "infinity",
        "-infinity",
        "0001-12-31 23:59:59 BC",
        "0001-12-31 23:59:59.5 BC",
        "4713-01-01 00:00:00 BC",
    ),
    *("10000-01-01 00:00:00", "10000-01-01 00:00:00.5", "12026-03-04 10:30:00.123456"),
    *("100000-01-01 00:00:00", "294276-12-31 23:59:59.9999", "0044-03-15 12:00:00.123456 BC"),
]


@pytest.mark.parametrize("text", OTHER_YEARS)
def test_years_that_iso_8601_cannot_write_are_null(text: str) -> None:
    good = "2026-03-04 10:30:00"
    assert UtcDateTime.serialize_texts([good, text, None]) == ["2026-03-04T10:30:00Z", None, None]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "04.03.2026 10:30:00",
            "04.03.2026 10:30:00.5",
            "03/04/2026 10:30:00",
            "04/03/2026 10:30:00.123456",
        ),
        *("Wed Mar 04 10:30:00 2026", "Wed Mar 04 10:30:00.5 2026", "04.03.0044 10:30:00 BC"),
        *("2026-03-04 10:30:00+00", "2026-03-04", "10:30:00", "2026", "", "Infinity", "someday"),
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a time") as raised:
        UtcDateTime.serialize_texts(["2026-03-04 10:30:00", text])
    assert text not in str(raised.value) or not text
