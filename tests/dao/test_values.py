"""The values of a response are those of the database, whatever its settings and the types of its columns."""

import gc
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from psycopg2.extensions import connection as PsycopgConnection
from psycopg2.extensions import make_dsn

from medmitra_cases.cli.main import main
from medmitra_cases.database import read_sql
from medmitra_cases.database.connection import Connection
from medmitra_cases.responses import cases
from tests.support.factories import DOCTOR, LAYOUTS, PRODUCT_TABLE, CasesDatabase, case, client_on, execute
from tests.support.processes import wait_until

PATH = "/cases/all_cases"
TIMES = ("2026-03-04 10:30:00+00", "2026-03-04 10:30:00.5+00", "0001-01-01 00:00:00+00")


@pytest.fixture
def owner(empty_database: str) -> Iterator[PsycopgConnection]:
    """The owner's connection to a database with the service's own table."""
    with closing(psycopg2.connect(empty_database)) as connection:
        connection.autocommit = True
        LAYOUTS["own_table"].create(connection)
        yield connection


def get(client: FlaskClient, **sent: str) -> list[dict[str, Any]]:
    response = client.get(PATH, query_string={"user_id": DOCTOR, **sent})
    assert response.status_code == 200, response.get_json()
    found: list[dict[str, Any]] = response.get_json()["cases"]
    return found


def tag_of(client: FlaskClient) -> str:
    return client.get(PATH, query_string={"user_id": DOCTOR}).headers["ETag"]


def check(dsn: str) -> Result:
    return CliRunner().invoke(main, ["check"], env={"DATABASE_URL": dsn})


def session_of(client: FlaskClient) -> Connection:
    """The session in which the service has just read for this client, in this thread."""
    get(client)
    known = [thing for thing in gc.get_objects() if isinstance(thing, Connection) and not thing.closed]
    (session,) = (connection for connection in known if connection.info.user == "medmitra_cases")
    return session


@contextmanager
def reloaded(owner: PsycopgConnection, setting: str, value: str) -> Iterator[None]:
    """Change a setting of the whole server under its sessions, until the block ends."""
    try:
        execute(owner, f"ALTER SYSTEM SET {setting} = '{value}'")
        execute(owner, "SELECT pg_reload_conf()")
        yield
    finally:
        execute(owner, f"ALTER SYSTEM RESET {setting}")
        execute(owner, "SELECT pg_reload_conf()")


@pytest.mark.parametrize("lists", ["whole", "in pieces"])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("DateStyle", style) for style in ("German", "SQL, DMY", "Postgres, MDY")),
        # To a server of version 18, UTC is then an abbreviation of this zone, five hours to the west.
        *(("TimeZone", zone) for zone in ("Asia/Kolkata", "UTC+5")),
    ],
)
def test_no_setting_changes_times(
    client: FlaskClient,
    database: CasesDatabase,
    setting: str,
    value: str,
    lists: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if lists == "in pieces":
        monkeypatch.setattr(cases, "WHOLE_CASES", 1)
        monkeypatch.setattr(cases, "CHUNK_CASES", 2)
    database.add(*(case(created_at=moment, updated_at=moment) for moment in TIMES))
    asked: list[dict[str, str]] = [{}, {"start_date": "2026-03-04"}, {"end_date": "2026-03-04T10:30:00Z"}]
    session = session_of(client)
    before = [get(client, **sent) for sent in asked]
    assert [len(found) for found in before] == [3, 2, 2]
    tag = tag_of(client)
    with reloaded(database.owner, setting, value):
        # The session notices between two statements, and tells its client.
        wait_until(
            lambda: (
                get(client)
                and session.info.parameter_status(setting) == value.replace("German", "German, DMY")
            )
        )
        assert [get(client, **sent) for sent in asked] == before
        assert tag_of(client) == tag


OTHER_YEARS = ["infinity", "-infinity", "0001-12-31 23:59:59+00 BC", "0044-03-15 12:00:00.5+00 BC"] + [
    f"{year}-01-01 00:00:00{fraction}+00"
    for year in (10000, 100000, 294276)
    for fraction in ("", ".5", ".123456")
]
UNCHECKED = "; ".join(
    f"ALTER TABLE medmitra.cases DROP CONSTRAINT cases_{column}_is_iso_8601"
    for column in ("created_at", "updated_at")
)


@pytest.mark.parametrize("column_type", ["timestamptz", "timestamp"])
def test_times_that_iso_8601_cannot_write_are_null(
    empty_database: str, owner: PsycopgConnection, column_type: str
) -> None:
    assert "infinite times" not in check(empty_database).output
    execute(owner, UNCHECKED)
    execute(owner, f"ALTER TABLE medmitra.cases ALTER created_at TYPE {column_type}")
    database = CasesDatabase(LAYOUTS["own_table"], owner, empty_database, empty_database)
    database.add(*(case(created_at=moment, updated_at=TIMES[0]) for moment in (TIMES[1], *OTHER_YEARS)))
    with client_on(empty_database) as client:
        found = get(client)
    assert [item["created_at"] for item in found] == ["2026-03-04T10:30:00.500000Z"] + [None] * len(
        OTHER_YEARS
    )
    assert {item["updated_at"] for item in found} == {"2026-03-04T10:30:00Z"}
    assert "! medmitra.cases may contain infinite times" in check(empty_database).output


TEXTS = ("patient_name", "patient_gender", "case_summary", "status")
TEXT_TYPES = ("varchar", "varchar(80)", "char(80)", "citext", "label", "short_label")
SERVED = {
    **dict.fromkeys(TEXTS, TEXT_TYPES),
    "patient_age": ("smallint", "bigint", "years"),
    "case_id": ("text", "varchar(36)", "char(36)", "identifier"),
    "user_id": ("identifier",),
    "created_at": ("timestamp", "moment", "local"),
    "updated_at": ("timestamp", "moment", "local"),
}
MORE_TYPES = """
    CREATE EXTENSION IF NOT EXISTS citext;
    CREATE DOMAIN long_label AS varchar(80); CREATE DOMAIN short_label AS long_label CHECK (VALUE <> 'x');
    CREATE DOMAIN label AS text; CREATE DOMAIN identifier AS uuid; CREATE DOMAIN document AS jsonb;
    CREATE DOMAIN years AS int CHECK (VALUE >= 0); CREATE TYPE pair AS (a text, b int);
    CREATE DOMAIN moment AS timestamptz; CREATE DOMAIN local AS timestamp without time zone;
    CREATE TYPE state AS ENUM ('pending');
"""


@pytest.mark.parametrize(("column", "column_types"), SERVED.items(), ids=SERVED)
def test_types_that_are_served_as_they_are(
    empty_database: str, owner: PsycopgConnection, column: str, column_types: tuple[str, ...]
) -> None:
    for policy in ("one_doctor", "one_doctor_permissive"):  # a policy fixes the type of user_id
        execute(owner, f"DROP POLICY {policy} ON medmitra.cases")
    execute(owner, f"{MORE_TYPES}; SET TimeZone = 'UTC'")
    mine = case(patient_name="Asha Rao", status="pending", created_at=TIMES[1])
    CasesDatabase(LAYOUTS["own_table"], owner, "", "").add(mine)
    # The zone of a column without one is UTC, not that of the session.
    far_away = make_dsn(empty_database, options="-c TimeZone=Asia/Kolkata")
    with client_on(far_away) as client:
        before = get(client)
    execute(owner, f"ALTER TABLE medmitra.cases ALTER {column} DROP DEFAULT")
    for column_type in column_types:
        cast = f"ALTER {column} TYPE {column_type} USING {column}::{column_type}"
        execute(owner, f"ALTER TABLE medmitra.cases {cast}")
        with client_on(far_away) as client:
            assert get(client) == before, column_type
            assert get(client, status="pending", gender="female", search="asha") == before
            assert get(client, start_date="2026-03-04T10:30:00Z", end_date="2026-03-04T10:31:00Z") == before
            assert get(client, start_date="2026-03-04T10:31:00Z") == []
            assert get(client, updated_since="2026-01-01") == before
            assert get(client, updated_since="9999-01-01") == []
            assert get(client, sort_by="created_at") == before
            assert get(client, status="Pending") == get(client, gender="FEMALE") == []
            assert get(client, limit="1") == before
        result = check(empty_database)
        assert "✓ all columns of medmitra.cases exist and have the right types" in result.output
        # This test runs it as the owner.
        failed = re.findall("^✗ (.*)", result.output, re.MULTILINE)
        assert failed == ["the role sees the cases of all doctors at once"], result.output


OTHER_TYPES = {
    "jsonb": '{"secret": 1}',
    "document": '{"secret": 1}',
    "json": "1",
    "text[]": "{secret}",
    "bytea": "secret",
    "pair": "(secret,2)",
    "state": "pending",
    "money": "1",
    "boolean": "true",
    "inet": "127.0.0.1",
    "float8": "1",
}
REFUSED = {
    **{column: OTHER_TYPES | {"int": "1", "uuid": DOCTOR} for column in TEXTS},
    "patient_age": OTHER_TYPES | {"numeric": "1.5", "text": "1", "timestamptz": TIMES[0]},
    "case_id": OTHER_TYPES | {"int": "1", "citext": "secret"},
    "created_at": OTHER_TYPES | {"int": "1", "time": "10:30", "timestamptz[]": "{2026-03-04}"},
}


@pytest.mark.parametrize(("column", "column_types"), REFUSED.items(), ids=REFUSED)
def test_another_type_is_a_500_never_a_text_that_looks_right(
    empty_database: str,
    owner: PsycopgConnection,
    column: str,
    column_types: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    execute(owner, MORE_TYPES)
    CasesDatabase(LAYOUTS["own_table"], owner, "", "").add(case())
    with client_on(empty_database) as client:
        assert len(get(client)) == 1
        for column_type, value in column_types.items():
            caplog.clear()
            added = f"ADD COLUMN {column} {column_type} DEFAULT '{value}'"
            execute(owner, f"ALTER TABLE medmitra.cases DROP COLUMN {column}, {added}")
            response = client.get(PATH, query_string={"user_id": DOCTOR})
            assert response.status_code == 500, column_type
            assert "unexpected database error" in response.get_json()["detail"]
            assert re.search(rf"COALESCE types|cannot cast type|medmitra\.cases\.{column}: ", caplog.text), (
                caplog.text
            )
            assert "secret" not in response.text + caplog.text
            result = check(empty_database)
            assert result.exit_code == 1
            assert f"✗ medmitra.cases.{column} is " in result.output
            assert re.search(rf"→ .* with {column}::\w+\n", result.output), result.output


@pytest.mark.parametrize("column_type", ["state", "citext", "varchar(20)", "char(20)", "label"])
def test_the_view_serves_what_is_text_in_meaning(empty_database: str, column_type: str) -> None:
    with closing(psycopg2.connect(empty_database)) as owner:
        owner.autocommit = True
        execute(owner, MORE_TYPES)
        execute(owner, PRODUCT_TABLE.replace("status text", f"status {column_type} DEFAULT 'pending'"))
        for name in LAYOUTS["existing_table"].files:
            execute(owner, read_sql(name))
        execute(
            owner,
            "INSERT INTO public.cases (case_id, doctor_id, patient_name, patient_age, patient_gender)"
            " VALUES ('1', %s, 'Asha Rao', 34, 'female')",
            [DOCTOR],
        )
        with client_on(empty_database) as client:
            (found,) = get(client)
            assert found["status"] == "pending"
            assert get(client, status="pending") == [found]
            assert get(client, status="Pending") == get(client, status="other") == []
        assert check(empty_database).exit_code == 0


def test_search_follows_the_locale_of_the_database(empty_database: str, owner: PsycopgConnection) -> None:
    """The collation C of a column would change É in the search text only."""
    execute(owner, 'ALTER TABLE medmitra.cases ALTER patient_name TYPE text COLLATE "C"')
    CasesDatabase(LAYOUTS["own_table"], owner, "", "").add(case(patient_name="Élan Rao"))
    with client_on(empty_database) as client:
        for text in ("Élan", "élan", "ÉLAN RAO"):
            assert len(get(client, search=text)) == 1
        assert get(client, search="elan") == []
