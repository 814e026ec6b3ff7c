"""Valid values of each query parameter. Another value gets a 400 with its name, without a database query."""

import datetime as dt
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from tests.support.factories import DOCTOR, UTC, CasesDatabase, case
from tests.support.links import ALIASES, links

URL = "/cases/all_cases"
USER_ID = f"user_id={DOCTOR}"

# One valid value of each parameter.
VALID = {
    "status": "pending",
    "gender": "female",
    "search": "asha",
    "min_age": "18",
    "max_age": "65",
    "start_date": "2026-03-04",
    "end_date": "2026-03-04T10:30:00Z",
    "updated_since": "2026-03-04T10:30:00+05:30",
    "sort_by": "status",
    "sort_order": "desc",
    "limit": "5",
    "page": "2",
    "after": DOCTOR,
}
# The parameter that each name means.
PARAMETER = {**{name: name for name in VALID}, **{alias: name for name, alias in ALIASES.items()}}
SPELLINGS = [*PARAMETER]


def integer_rule(minimum: int, maximum: int) -> str:
    return f"must be an integer from {minimum} to {maximum}"


AGE_RULE = integer_rule(-999_999_999, 999_999_999)
LIMIT_RULE = integer_rule(1, 1000)
PAGE_RULE = integer_rule(1, 999_999_999)
DATE_RULE = (
    "must be a date like 2026-03-04, or a time with its offset like 2026-03-04T10:30:00Z (in a URL + is %2B)"
)

# Each value as it is written in the URL, in which + means a blank.
INVALID_INTEGERS = [
    *("%20", "%00", "%FF", "null", "NaN", "ten", "-", "--1", "+5", "%2B5", "5+", "5%0A", "5%00", "5,6"),
    *("1_0", "1e2", "0x10", "1.5", "1%2C000", "%C2%B2", "%D9%A5", "%EF%BC%95", "1" * 10, "9" * 9_999),
]
INVALID_TIMES = [
    *("%20", "%00", "%FF", "null", "now", "infinity", "-infinity", "1772620200", "2026", "2026-03"),
    # Dates that do not exist, or are written in another format.
    *("2026-02-30", "2025-02-29", "1900-02-29", "2026-13-01", "2026-00-10", "2026-04-31", "2026-04-00"),
    *("0000-01-01", "10000-01-01", "%2B2026-03-04", "-2026-03-04", "26-03-04", "2026-3-4", "20260304"),
    *("2026-W10-3", "2026-063", "04.03.2026", "03/04/2026", "2026-03-04BC", "2026-03-04Z", "+2026-03-04"),
    *("2026-03-04+", "2026-03-04%0A", "2026-03-04%00", "%D9%A2026-03-04", "%EF%BC%92026-03-04"),
    # Times that do not exist, have no offset, or are written in another format.
    *("2026-03-04T", "2026-03-04TZ", "2026-03-04T10Z", "2026-03-04T10:30", "2026-03-04T10:30:00", "T10:30Z"),
    *("2026-03-04+10:30:00Z", "2026-03-04t10:30:00Z", "2026-03-04T10:30:00z", "2026-03-04T103000Z"),
    *("2026-03-04T24:00:00Z", "2026-03-04T10:60:00Z", "2026-03-04T10:30:60Z", "2026-03-04T10:30:00-24:00"),
    *("2026-03-04T10:30:00.Z", "2026-03-04T10:30:00,5Z", "2026-03-04T10:30.5Z"),
    *("2026-03-04T10:30:00.1234567Z", "2026-03-04T10:30:00Z%0A", "2026-03-04T10:30:00Z+"),
    *("2026-03-04T10:30:00%2B0530", "2026-03-04T10:30:00%2B05", "2026-03-04T10:30:00%2B5:30"),
    *("2026-03-04T10:30:00%2B05:60", "2026-03-04T10:30:00%2B05:30:00", "2026-03-04T10:30:00%E2%88%9205:30"),
    *("2026-03-04T10:30:00+05:30", "2026-03-04T10:30:00UTC"),
    # Times whose year, as written or in UTC, is before 0001 or after 9999.
    *("0001-01-01T00:00:00%2B00:01", "9999-12-31T23:59:59-00:01", "0000-12-31T23:59:59-23:59"),
]
INVALID_TEXTS = {
    "must be at most 100 characters long": ["x" * 101, quote("日" * 101), "+" * 101, "x" * 9_999],
    "must not contain the character U+0000": ["%00", "x%00", "%00x", "%00%0A"],
}
INVALID_COLUMNS = [
    *("+", "%00", "%FF", "id", "case_id", "user_id", "patient_gender", "xmin", "1", "status%20desc"),
    *("CREATED_AT", "createdAt", "status+", "-status", "status,patient_age", "status%0A", "status;"),
]
INVALID_ORDERS = ["+", "%00", "%FF", "ASC", "Desc", "desc+", "descending", "-1", "asc%0A"]
INVALID_UUIDS = [
    *("+", "%00", "%FF", "1", "null", DOCTOR[:-1], DOCTOR + "0", DOCTOR + "%0A", DOCTOR + "%00"),
    *("{" + DOCTOR + "}", DOCTOR.replace("-", ""), DOCTOR[:-1] + "g", DOCTOR.replace("8", "%D9%A8")),
]
INVALID: dict[str, dict[str, list[str]]] = {
    **dict.fromkeys(("status", "gender", "search"), INVALID_TEXTS),
    **{name: {AGE_RULE: [*INVALID_INTEGERS, "-1000000000"]} for name in ("min_age", "max_age")},
    **{name: {DATE_RULE: INVALID_TIMES} for name in ("start_date", "end_date", "updated_since")},
    "sort_by": {"must be created_at, updated_at, patient_name, patient_age or status": INVALID_COLUMNS},
    "sort_order": {"must be asc or desc": INVALID_ORDERS},
    "limit": {LIMIT_RULE: [*INVALID_INTEGERS, "0", "-0", "000", "-1", "1001", "999999999"]},
    "page": {PAGE_RULE: [*INVALID_INTEGERS, "0", "-0", "-1", "1000000000"]},
    "after": {"must be a UUID written like b8acad4b-4944-4d66-b405-de70886e7248": INVALID_UUIDS},
}
REFUSED = [
    pytest.param(spelling, value, rule, id=f"{spelling}={value[:30]}")
    for name, rules in INVALID.items()
    for rule, values in rules.items()
    for spelling in (name, ALIASES.get(name))
    if spelling
    for value in values
]


def get(client: FlaskClient, query: str, **headers: str) -> TestResponse:
    """Send a raw query string; returns the response."""
    return client.get(URL, environ_overrides={"QUERY_STRING": query}, headers=headers)


def error_detail(client: FlaskClient, query: str) -> str:
    """Send a raw query string; returns the detail of its 400."""
    response = get(client, query)
    assert response.status_code == 400, (query, response.data)
    assert response.content_type == "application/json"
    assert list(response.get_json()) == ["detail"]
    assert not {"Link", "X-Total-Count", "ETag"} & {*response.headers.keys()}
    detail: str = response.get_json()["detail"]
    return detail


def patient_names(client: FlaskClient, query: str) -> list[str]:
    """Send a raw query string; returns the names of the patients in the response."""
    response = get(client, query)
    assert response.status_code == 200, (query, response.data)
    return [item["patient_name"] for item in response.get_json()["cases"]]


@pytest.mark.parametrize(("name", "value", "rule"), REFUSED)
def test_an_invalid_value_gets_a_400_with_the_sent_name_and_the_rule(
    client_without_database: FlaskClient, name: str, value: str, rule: str
) -> None:
    # The detail does not depend on the value, and so does not repeat it.
    assert error_detail(client_without_database, f"{USER_ID}&{name}={value}") == f"{name} {rule}"


# The parameters that can be given several times.
REPEATABLE = ("status", "gender")


@pytest.mark.parametrize("name", [name for name in SPELLINGS if name not in REPEATABLE])
@pytest.mark.parametrize("second", ["", "%00", "the same"])
def test_a_repeated_parameter_gets_a_400(
    client_without_database: FlaskClient, name: str, second: str
) -> None:
    value = {**VALID, **{alias: VALID[known] for known, alias in ALIASES.items()}}[name]
    query = f"{USER_ID}&{name}={value}&{name}={value if second == 'the same' else second}"
    assert error_detail(client_without_database, query) == f"{name} must be given once, not 2 times"


@pytest.mark.parametrize("name", REPEATABLE)
def test_a_repeated_text_means_any_of_its_values(
    client: FlaskClient, database: CasesDatabase, name: str
) -> None:
    column = {"status": "status", "gender": "patient_gender"}[name]
    for value in ("a", "", "b,c", "c"):
        database.add(case(patient_name=value, **{column: value}))
    assert patient_names(client, f"{USER_ID}&{name}=c&{name}=a") == ["a", "c"]
    assert patient_names(client, f"{name}=&{USER_ID}&{name}=b,c&{name}=other") == ["", "b,c"]
    assert patient_names(client, f"{USER_ID}&" + "&".join([f"{name}=a"] * 20)) == ["a"]
    response = get(client, f"{USER_ID}&{name}=&{name}=a&{name}=c&limit=1")
    assert response.headers["X-Total-Count"] == "3"
    assert links(response)["next"][name] == ["", "a", "c"]


@pytest.mark.parametrize("name", REPEATABLE)
def test_each_value_of_a_repeated_text_is_checked(client_without_database: FlaskClient, name: str) -> None:
    valid = "&".join([f"{name}=x"] * 19)
    for rule, values in INVALID_TEXTS.items():
        for value in values:
            detail = error_detail(client_without_database, f"{USER_ID}&{valid}&{name}={value}")
            assert detail == f"{name} {rule}"
    detail = error_detail(client_without_database, f"{USER_ID}&{valid}&{name}=x&{name}=x")
    assert detail == f"{name} must be given at most 20 times"


@pytest.mark.parametrize(("name", "alias"), ALIASES.items())
def test_a_name_and_its_alias_are_one_parameter(
    client_without_database: FlaskClient, name: str, alias: str
) -> None:
    for query, times in (
        (f"{name}={VALID[name]}&{alias}={VALID[name]}", 2),
        (f"{alias}=&{name}={VALID[name]}", 2),
        (f"{alias}=1&{name}=2&{alias}=3", 3),
    ):
        detail = error_detail(client_without_database, f"{query}&{USER_ID}")
        assert detail == f"{name} must be given once, not {times} times"


def test_the_error_names_every_invalid_parameter(client_without_database: FlaskClient) -> None:
    detail = error_detail(client_without_database, "limit=0&minAge=x&sort_order=up&search=asha&max_age=5")
    assert sorted(detail.split("; ")) == [
        f"limit {LIMIT_RULE}",
        f"minAge {AGE_RULE}",
        "sort_order must be asc or desc",
        "user_id is missing",
    ]


@given(name=st.sampled_from(SPELLINGS), value=st.binary(max_size=30))
@settings(deadline=None)
def test_any_bytes_are_a_valid_value_or_get_a_400(
    client_without_database: FlaskClient, name: str, value: bytes
) -> None:
    response = get(client_without_database, f"{USER_ID}&{name}={quote(value)}")
    # A valid value gets a 500, because there is no database.
    assert response.status_code in (400, 500)
    if response.status_code == 400:
        assert response.get_json()["detail"].startswith(f"{name} must ")


TEXTS = {"status", "gender", "search"}
EMPTIED = [name for name in SPELLINGS if name not in TEXTS]
# The filters of a form of which nothing is filled in.
FORM = [ALIASES.get(name, name) for name in VALID if name not in TEXTS]


@pytest.mark.parametrize("sent", ["", "limit=2&status=", "page=2&limit=2", "sort_by=status&limit=1&minAge=1"])
def test_an_empty_value_counts_as_absent_unless_it_is_a_text(
    client: FlaskClient, database: CasesDatabase, sent: str
) -> None:
    """The body and all headers are the same, also the tag and the links to other pages."""
    database.add(*(case(status="") for _ in range(5)), case(status="pending"))
    headers = {"X-Request-ID": "the-same"}
    plain = get(client, f"{USER_ID}&{sent}", **headers)
    assert ("Link" in plain.headers) == bool(sent)
    sent_names = {PARAMETER[pair.partition("=")[0]] for pair in sent.split("&") if pair}
    for emptied in (*([name] for name in EMPTIED), FORM):
        pairs = [f"{name}=" for name in emptied if PARAMETER[name] not in sent_names]
        for query in ([*pairs, USER_ID, sent], [USER_ID, *pairs, sent], [USER_ID, sent, *pairs]):
            response = get(client, "&".join(query), **headers)
            assert (response.status_code, response.data) == (200, plain.data), query
            assert {**response.headers} == {**plain.headers}
            unchanged = get(client, "&".join(query), **headers, **{"If-None-Match": plain.headers["ETag"]})
            assert (unchanged.status_code, unchanged.data) == (304, b"")


UNKNOWN = [
    *("STATUS=x", "Status=x", "status[]=x", "statuses=x", "state=x", "q=x", "query=x", "Search=x"),
    *("minage=x", "MinAge=x", "min-age=x", "age=x", "startdate=x", "start=x", "sortby=x", "sort=x"),
    *("Limit=0", "limit[]=0", "per_page=0", "Page=0", "page[number]=0", "offset=x", "cursor=x"),
    *("id=1", "=1", "&&", "a;limit=1", "%FF=%00", "user_id[]=x", "x=1&x=2"),
]


@pytest.mark.parametrize("query", [*UNKNOWN, "&".join(UNKNOWN), "sort_order=asc", "sortOrder=asc"])
def test_unknown_parameters_and_defaults_change_nothing(
    client: FlaskClient, database: CasesDatabase, query: str
) -> None:
    database.add(case(), case(created_at=None), case())
    headers = {"X-Request-ID": "the-same"}
    plain = client.get(URL, environ_overrides={"QUERY_STRING": USER_ID}, headers=headers)
    for extended in (f"{USER_ID}&{query}", f"{query}&{USER_ID}"):
        response = client.get(URL, environ_overrides={"QUERY_STRING": extended}, headers=headers)
        assert response.status_code == 200
        assert response.data == plain.data
        assert dict(response.headers) == dict(plain.headers)
    assert not {"Link", "X-Total-Count"} & {*plain.headers.keys()}


@pytest.mark.parametrize(
    ("query", "limit", "names"),
    [
        ("limit=1", "1", ["1"]),
        ("limit=0000002", "2", ["1", "2"]),
        ("limit=1000", "1000", [str(number) for number in range(1, 13)]),
        ("page=1", "10", [str(number) for number in range(1, 11)]),
        ("page=2", "10", ["11", "12"]),
        ("page=999999999", "10", []),
        ("page=999999999&limit=1000", "1000", []),
        ("page=5&limit=3", "3", []),
        ("page=4&limit=3", "3", ["10", "11", "12"]),
    ],
)
def test_limit_and_page_select_the_cases(
    client: FlaskClient, database: CasesDatabase, query: str, limit: str, names: list[str]
) -> None:
    database.add(*(case(patient_name=str(number)) for number in range(1, 13)))
    assert patient_names(client, f"{USER_ID}&{query}") == names
    response = get(client, f"{USER_ID}&{query}")
    assert response.headers["X-Total-Count"] == "12"
    assert {target["limit"] for target in links(response).values()} == {limit}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("min_age=7", ["seven", "eight"]),
        ("minAge=007", ["seven", "eight"]),
        ("max_age=-0", ["unborn", "born"]),
        ("maxAge=-1", ["unborn"]),
        ("min_age=-999999999&max_age=999999999", ["unborn", "born", "seven", "eight"]),
        ("min_age=8&max_age=7", []),
    ],
)
def test_min_age_and_max_age_select_the_cases(
    client: FlaskClient, database: CasesDatabase, query: str, names: list[str]
) -> None:
    ages = {"unborn": -1, "born": 0, "seven": 7, "eight": 8}
    database.add(*(case(patient_name=name, patient_age=age) for name, age in ages.items()))
    assert patient_names(client, f"{USER_ID}&{query}") == names


# Every string that Postgres can store, up to the maximum length of a parameter.
SHORT_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100)


@given(value=SHORT_TEXT)
@example(value="")
@example(value="日" * 100)
@example(value="\U0001f600" * 100)
@example(value="%_\\'\"%s%%(x)s")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_short_text_is_matched_literally(
    client: FlaskClient, database: CasesDatabase, value: str
) -> None:
    database.clear()
    same = {"status": value, "patient_gender": value, "case_summary": f"({value})"}
    database.add(case(patient_name="other", status=f"{value}.", patient_gender=f".{value}"))
    database.add(case(patient_name="same", **same))
    written = quote(value)
    assert patient_names(client, f"{USER_ID}&status={written}") == ["same"]
    assert patient_names(client, f"{USER_ID}&gender={written}") == ["same"]
    assert "same" in patient_names(client, f"{USER_ID}&search={written}")
    response = get(client, f"{USER_ID}&status={written}&search={written}&limit=5")
    if len(written) <= 400:  # bytes, twice in each of the two links; longer links are left out
        assert {*links(response)} >= {"first", "last"}
    for target in links(response).values() if "Link" in response.headers else ():
        assert (target["status"], target["search"]) == (value, value)


def test_bytes_that_are_not_utf_8_match_nothing(client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case(patient_name="ÿ", status="ÿ", patient_gender=""))
    for name in ("search", "status", "gender"):
        assert patient_names(client, f"{USER_ID}&{name}=%FF") == []
        assert patient_names(client, f"{USER_ID}&{name}=\xff") == []


MICROSECOND = dt.timedelta(microseconds=1)


def cases_at(*moments: tuple[str, dt.datetime, int]) -> list[dict[str, Any]]:
    """Cases written this many microseconds after a moment, each with its name, if that time exists."""
    first, last = dt.datetime.min.replace(tzinfo=UTC), dt.datetime.max.replace(tzinfo=UTC)
    times = {
        name: moment + microseconds * MICROSECOND
        for name, moment, microseconds in moments
        if first - moment <= microseconds * MICROSECOND <= last - moment
    }
    return [case(patient_name=name, created_at=time, updated_at=time) for name, time in times.items()]


@given(day=st.dates(), uses_aliases=st.booleans())
@example(day=dt.date.min, uses_aliases=False)
@example(day=dt.date.max, uses_aliases=False)
@example(day=dt.date(2024, 2, 29), uses_aliases=True)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_date_means_its_whole_day_in_utc(
    client: FlaskClient, database: CasesDatabase, day: dt.date, uses_aliases: bool
) -> None:
    start, end = ("startDate", "endDate") if uses_aliases else ("start_date", "end_date")
    midnight = dt.datetime.combine(day, dt.time.min, UTC)
    last = dt.datetime.combine(day, dt.time.max, UTC)
    cases = cases_at(("before", midnight, -1), ("first", midnight, 0), ("last", last, 0), ("after", last, 1))
    database.clear()
    database.add(*cases, case(patient_name="never", created_at=None, updated_at=None))
    names = [columns["patient_name"] for columns in cases]
    assert patient_names(client, f"{USER_ID}&{start}={day}&{end}={day}") == ["first", "last"]
    assert patient_names(client, f"{USER_ID}&{start}={day}") == names[names.index("first") :]
    assert patient_names(client, f"{USER_ID}&{end}={day}") == names[: names.index("last") + 1]
    since = "updatedSince" if uses_aliases else "updated_since"
    assert patient_names(client, f"{USER_ID}&{since}={day}") == names[names.index("first") :]


@st.composite
def written_moments(draw: st.DrawFn) -> tuple[dt.datetime, str]:
    """Draw a moment, and one of the ways to write it with an offset."""
    offset = dt.timezone(dt.timedelta(minutes=draw(st.integers(-1439, 1439))))
    local = draw(st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30, 23, 59, 59, 999_999)))
    digits = draw(st.integers(0, 6))
    cut = local.microsecond // 10 ** (6 - digits) * 10 ** (6 - digits)
    local = local.replace(microsecond=cut, tzinfo=offset)
    written = f"{local:%H:%M:%S}" + (f".{cut:06}"[: 1 + digits] if digits else "")
    if written.endswith(":00") and draw(st.booleans()):
        written = written[:-3]
    zone = local.isoformat()[-6:]
    zone = "Z" if zone == "+00:00" and draw(st.booleans()) else zone
    return local.astimezone(UTC), f"{local.date()}T{written}{zone}"


@given(moment_written=written_moments())
@example(moment_written=(dt.datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00Z"))
@example(moment_written=(dt.datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T23:59:00+23:59"))
@example(moment_written=(dt.datetime.max.replace(tzinfo=UTC), "9999-12-31T00:00:59.999999-23:59"))
@example(moment_written=(dt.datetime(2026, 3, 4, 5, 0, 0, 500_000, UTC), "2026-03-04T10:30:00.5+05:30"))
@example(moment_written=(dt.datetime(2026, 3, 4, tzinfo=UTC), "2026-03-04T00:00:00-00:00"))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_time_with_an_offset_means_that_moment(
    client: FlaskClient, database: CasesDatabase, moment_written: tuple[dt.datetime, str]
) -> None:
    moment, written = moment_written
    cases = cases_at(("before", moment, -1), ("then", moment, 0), ("after", moment, 1))
    database.clear()
    database.add(*cases, case(patient_name="never", created_at=None, updated_at=None))
    names = [columns["patient_name"] for columns in cases]
    then = names.index("then")
    value = quote(written)
    assert patient_names(client, f"{USER_ID}&start_date={value}") == names[then:]
    assert patient_names(client, f"{USER_ID}&end_date={value}") == names[: then + 1]
    assert patient_names(client, f"{USER_ID}&startDate={value}&endDate={value}&limit=5") == ["then"]
    assert patient_names(client, f"{USER_ID}&updated_since={value}") == names[then:]
    assert patient_names(client, f"{USER_ID}&updatedSince={value}&end_date={value}&limit=5") == ["then"]
