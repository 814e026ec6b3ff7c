"""The source of tags: row versions if each change of a row changes its version, else the body."""

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import psycopg2
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn, parse_dsn
from werkzeug.test import TestResponse

from medmitra_cases.cli.main import main
from medmitra_cases.dao import definition
from medmitra_cases.database import read_sql
from medmitra_cases.testing.postgres import new_database
from tests.support.factories import DOCTOR, LAYOUTS, PRODUCT_TABLE, client_on, execute
from tests.support.processes import wait_until

URL = f"/cases/all_cases?user_id={DOCTOR}"
VIEW = read_sql("existing_table")

COLUMNS = """
    id bigint NOT NULL, case_id text NOT NULL, doctor_id uuid NOT NULL, patient_name text NOT NULL,
    patient_age int NOT NULL, patient_gender text NOT NULL, case_summary text, status text,
    created_at timestamptz, updated_at timestamptz
"""
VALUES = f"(1, 'a1', '{DOCTOR}', 'Asha Rao', 34, 'female', 'rests', 'pending', '2026-03-04', '2026-03-04')"
TABLE = f"CREATE TABLE public.cases ({COLUMNS}); INSERT INTO public.cases VALUES {VALUES};"
PARTITIONED = f"CREATE TABLE public.cases ({COLUMNS}) PARTITION BY LIST (doctor_id);"
NOTES = (
    "CREATE TABLE public.notes (note_id bigint, note text); INSERT INTO public.notes VALUES (1, 'pending');"
)
NOTE_OF = """
    CREATE FUNCTION public.note_of(bigint) RETURNS text LANGUAGE sql {}
    AS 'SELECT note FROM public.notes WHERE note_id = $1';
"""
BETWEEN = "CREATE VIEW public.between AS SELECT *, xmin FROM public.cases;"

CHANGE_CASE = "UPDATE public.cases SET status = 'completed'"
CHANGE_NOTE = "UPDATE public.notes SET note = 'completed'"
ADD_OTHERS = (
    f"INSERT INTO public.cases VALUES {VALUES.replace('b8acad4b', 'a8acad4b').replace('pending', 'queued')}"
)

JOINS = "medmitra.cases is a view that joins or aggregates"
CALLS = "medmitra.cases is a view that calls functions whose results may change"


def view(source: str = "public.cases", status: str = "status", xmin: str = ", cases.xmin") -> str:
    """medmitra.cases as an operator may define it."""
    return f"""
        CREATE SCHEMA medmitra;
        CREATE VIEW medmitra.cases AS
        SELECT id, case_id, doctor_id AS user_id, patient_name, patient_age, patient_gender, case_summary,
            {status} AS status, created_at, updated_at{xmin}
        FROM {source} AS cases;
    """


def foreign(name: str = "public.cases", columns: str = f"({COLUMNS})") -> str:
    """A table in the other database."""
    options = "OPTIONS (schema_name 'public', table_name 'cases')"
    return f"CREATE FOREIGN TABLE {name} {columns} SERVER far {options};"


class Source(NamedTuple):
    """A definition; the change of a row, in the other database if it is None; what is said about it."""

    made: str
    change: str | None
    reason: str


IN_DOCTORS_PARTITION = f"PARTITION OF public.cases FOR VALUES IN ('{DOCTOR}')"
WITHOUT_VERSIONS = {
    "a foreign table": Source(
        "CREATE SCHEMA medmitra;"
        + foreign("medmitra.cases", f"({COLUMNS.replace('doctor_id', 'user_id')})")
        + "ALTER TABLE medmitra.cases ALTER user_id OPTIONS (column_name 'doctor_id')",
        None,
        "medmitra.cases is a foreign table",
    ),
    "the view of one": Source(foreign() + VIEW, None, "public.cases is a foreign table"),
    "a view of a view of one": Source(
        foreign() + BETWEEN + view("public.between"), None, "public.cases is a foreign table"
    ),
    "a partition that is one": Source(
        PARTITIONED + foreign("public.part", IN_DOCTORS_PARTITION) + VIEW,
        None,
        "public.part is a foreign table",
    ),
    "a partition of a partition": Source(
        f"{PARTITIONED} CREATE TABLE public.part {IN_DOCTORS_PARTITION} PARTITION BY LIST (status);"
        + foreign("public.leaf", "PARTITION OF public.part DEFAULT")
        + view(),
        None,
        "public.leaf is a foreign table",
    ),
    "a child that is one": Source(
        f"CREATE TABLE public.cases ({COLUMNS});"
        + foreign("public.child", "() INHERITS (public.cases)")
        + VIEW,
        None,
        "public.child is a foreign table",
    ),
    "a materialized view": Source(
        f"{TABLE} CREATE MATERIALIZED VIEW public.kept AS SELECT * FROM public.cases;" + view("public.kept"),
        f"{CHANGE_CASE}; REFRESH MATERIALIZED VIEW public.kept",
        "public.kept is a materialized view",
    ),
    "a join": Source(
        TABLE
        + NOTES
        + view("public.notes JOIN public.cases ON note_id = id", "note").replace("AS cases", ""),
        CHANGE_NOTE,
        JOINS,
    ),
    "a join with a rule for deletes": Source(
        TABLE
        + NOTES
        + view("public.notes JOIN public.cases ON note_id = id", "note").replace("AS cases", "")
        + "CREATE RULE nothing AS ON DELETE TO medmitra.cases DO INSTEAD NOTHING",
        CHANGE_NOTE,
        JOINS,
    ),
    "a subquery": Source(
        TABLE + NOTES + view(status="(SELECT note FROM public.notes WHERE note_id = id)"), CHANGE_NOTE, JOINS
    ),
    "a subquery on the same table": Source(
        TABLE + view(status="(SELECT max(other.status) FROM public.cases AS other)"), ADD_OTHERS, JOINS
    ),
    "a window function": Source(TABLE + view(status="(count(*) OVER ())::text"), ADD_OTHERS, JOINS),
    "a function that reads": Source(
        TABLE + NOTES + NOTE_OF.format("STABLE") + view(status="public.note_of(id)"), CHANGE_NOTE, CALLS
    ),
    "a function that says it is immutable": Source(
        TABLE + NOTES + NOTE_OF.format("IMMUTABLE") + view(status="public.note_of(id)"), CHANGE_NOTE, CALLS
    ),
    "a function of Postgres": Source(
        TABLE + view(status="obj_description('public.cases'::regclass, 'pg_class')"),
        "COMMENT ON TABLE public.cases IS 'completed'",
        CALLS,
    ),
    "the time": Source(
        TABLE + view(status="status || extract(microseconds FROM current_timestamp)"), "SELECT", CALLS
    ),
    "an xmin that is none": Source(
        TABLE + view(xmin=", '3'::xid AS xmin"),
        CHANGE_CASE,
        "medmitra.cases is a view that does not read xmin",
    ),
    "no xmin": Source(
        TABLE + view(xmin=""), CHANGE_CASE, "the role cannot read the column xmin of medmitra.cases"
    ),
}

WITH_VERSIONS = {
    "own table": read_sql("schema"),
    "the product's table": f"{PRODUCT_TABLE}; {VIEW}",
    "a view of a view": TABLE + BETWEEN + view("public.between"),
    "partitions": f"{PARTITIONED} CREATE TABLE public.part {IN_DOCTORS_PARTITION}; {VIEW}",
    "an unlogged table": TABLE.replace("CREATE TABLE", "CREATE UNLOGGED TABLE") + VIEW,
    "immutable functions": TABLE + view(status="upper(nullif(status, ''))"),
}


@pytest.fixture
def far(server_dsn: str) -> Iterator[Connection]:
    """The owner's connection to another database, with the product's table and one case in it."""
    with new_database(server_dsn) as dsn, closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        execute(connection, TABLE)
        yield connection


@pytest.fixture
def owner(empty_database: str, far: Connection) -> Iterator[Connection]:
    """The owner's connection to the service's database, which knows the other one as the server far."""
    with closing(psycopg2.connect(empty_database)) as connection:
        connection.autocommit = True
        if not execute(connection, "SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
            pytest.skip("this server has no postgres_fdw")
        place = parse_dsn(empty_database) | {"dbname": far.info.dbname}
        login = {name: place.pop(name) for name in ("user", "password") if name in place}
        options = [", ".join(f"{name} '{value}'" for name, value in part.items()) for part in (place, login)]
        execute(
            connection,
            "CREATE EXTENSION postgres_fdw;"
            f"CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options[0]});"
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS ({options[1]})",
        )
        yield connection


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition, "_logged", set())


def get(client: FlaskClient, known: str = "") -> TestResponse:
    response = client.get(URL, headers={"If-None-Match": known} if known else {})
    assert response.status_code in (200, 304), response.get_json()
    return response


def check(dsn: str, source: str = "auto") -> str:
    variables = {"DATABASE_URL": dsn, "MEDMITRA_ETAG_SOURCE": source}
    return CliRunner().invoke(main, ["check"], env=variables).output


@pytest.mark.parametrize("source", WITHOUT_VERSIONS.values(), ids=WITHOUT_VERSIONS)
def test_no_304_for_a_row_that_changed_without_its_version(
    empty_database: str, owner: Connection, far: Connection, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    execute(owner, source.made)
    with client_on(empty_database) as client:
        before = get(client)
        assert len(before.get_json()["cases"]) == 1
        assert source.change == "SELECT" or get(client, before.headers["ETag"]).status_code == 304
        execute(far, CHANGE_CASE) if source.change is None else execute(owner, source.change)
        after = get(client, before.headers["ETag"])
        assert after.status_code == 200
        assert after.get_json() != before.get_json()
        assert source.change == "SELECT" or get(client, after.headers["ETag"]).status_code == 304
    (warning,) = (text for text in caplog.messages if "ETags" in text)
    assert source.reason in warning
    assert caplog.records[caplog.messages.index(warning)].levelno == logging.WARNING
    (line,) = (line for line in check(empty_database).splitlines() if "ETags" in line)
    assert line.startswith("! ETags are made from the response body")
    assert source.reason in line


@pytest.mark.parametrize("made", WITH_VERSIONS.values(), ids=WITH_VERSIONS)
def test_ordinary_tables_and_simple_views_have_row_versions(
    empty_database: str, owner: Connection, made: str, caplog: pytest.LogCaptureFixture
) -> None:
    execute(owner, made)
    with client_on(empty_database) as client:
        assert get(client, get(client).headers["ETag"]).status_code == 304
    assert "ETags" not in caplog.text
    assert "✓ ETags are made from row versions (xmin)" in check(empty_database)


def test_a_table_that_becomes_a_foreign_one(empty_database: str, owner: Connection, far: Connection) -> None:
    execute(owner, TABLE + VIEW)
    with client_on(empty_database) as client:
        before = get(client).headers["ETag"]
    execute(owner, f"DROP TABLE public.cases CASCADE; {foreign()} {VIEW}")
    with client_on(empty_database) as client:
        first = get(client, before)
        assert first.status_code == 200
        execute(far, CHANGE_CASE)
        assert get(client, first.headers["ETag"]).status_code == 200


def test_check_warns_of_row_versions_that_the_operator_has_set(
    empty_database: str, owner: Connection
) -> None:
    execute(owner, foreign() + VIEW)
    warning = (
        "! ETags are made from row versions (xmin), which may miss changes: public.cases is a foreign table"
    )
    assert warning in check(empty_database, "rows")
    assert "ETags" not in check(empty_database, "body")


SHOUT = "CREATE OR REPLACE FUNCTION public.shout(text) RETURNS text IMMUTABLE"
# A definition, and the change of the catalogue that changes the response without writing a row.
CATALOGUE = {
    "a label of an enumeration": (
        f"{TABLE} CREATE TYPE public.state AS ENUM ('pending', 'completed');"
        f" ALTER TABLE public.cases ALTER status TYPE public.state USING status::public.state; {VIEW}",
        "ALTER TYPE public.state RENAME VALUE 'pending' TO 'waiting'",
    ),
    "a function of a view": (
        f"{TABLE} {SHOUT} LANGUAGE sql AS 'SELECT upper($1)';" + view(status="public.shout(status)"),
        f"{SHOUT} LANGUAGE sql AS 'SELECT initcap($1)'",
    ),
    "a function whose body is parsed": (
        f"{TABLE} {SHOUT} RETURN upper($1);" + view(status="public.shout(status)"),
        f"{SHOUT} RETURN initcap($1)",
    ),
    "a generated column": (
        TABLE.replace("status text", "old text")
        + "ALTER TABLE public.cases ADD status text GENERATED ALWAYS AS (upper(old)) VIRTUAL;"
        + VIEW,
        "ALTER TABLE public.cases ALTER status SET EXPRESSION AS (initcap(old))",
    ),
    "a generated column below views": (
        TABLE.replace("status text", "old text")
        + "ALTER TABLE public.cases ADD status text GENERATED ALWAYS AS (upper(old)) VIRTUAL;"
        + BETWEEN
        + view("public.between"),
        "ALTER TABLE public.cases ALTER status SET EXPRESSION AS (initcap(old))",
    ),
    "a column with a default for old rows": (
        TABLE + view(),
        "DROP SCHEMA medmitra CASCADE; ALTER TABLE public.cases RENAME status TO old;"
        "ALTER TABLE public.cases ADD status text DEFAULT 'archived';" + view(),
    ),
}


@pytest.mark.parametrize("source", ["auto", "rows", "body"])
@pytest.mark.parametrize(("made", "change"), CATALOGUE.values(), ids=CATALOGUE)
def test_a_change_of_the_catalogue_changes_tags(
    empty_database: str, owner: Connection, made: str, change: str, source: str
) -> None:
    if "VIRTUAL" in made and owner.info.server_version < 180000:
        pytest.skip("this server has no virtual generated columns")
    execute(owner, made)
    with client_on(empty_database, MEDMITRA_ETAG_SOURCE=source) as client:
        before = get(client)
    execute(owner, change)
    with client_on(empty_database, MEDMITRA_ETAG_SOURCE=source) as client:
        after = get(client, before.headers["ETag"])
        assert after.status_code == 200
        assert after.get_json() != before.get_json()


@pytest.mark.parametrize("source", ["auto", "rows"])
@pytest.mark.parametrize(("made", "change"), CATALOGUE.values(), ids=CATALOGUE)
def test_a_change_of_the_catalogue_changes_tags_when_the_connection_is_renewed(
    empty_database: str, owner: Connection, made: str, change: str, source: str
) -> None:
    if "VIRTUAL" in made and owner.info.server_version < 180000:
        pytest.skip("this server has no virtual generated columns")
    execute(owner, made)
    variables = {"MEDMITRA_ETAG_SOURCE": source, "MEDMITRA_CONNECTION_MAX_AGE_SECONDS": "1"}
    with client_on(empty_database, **variables) as client:
        before = get(client)
        execute(owner, change)
        wait_until(lambda: get(client, before.headers["ETag"]).status_code == 200)
        assert get(client).get_json() != before.get_json()


@pytest.mark.parametrize("source", ["auto", "rows", "body"])
def test_a_changed_policy_changes_tags(empty_database: str, owner: Connection, source: str) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(
        owner,
        "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender)"
        " VALUES (%s, 'Asha', 34, 'female'), (%s, 'Ravi', 43, 'male')",
        [DOCTOR, DOCTOR],
    )
    role = make_dsn(empty_database, options="-c role=medmitra_cases")
    with client_on(role, MEDMITRA_ETAG_SOURCE=source) as client:
        before = get(client)
        execute(owner, "ALTER POLICY one_doctor ON medmitra.cases USING (patient_age < 40)")
        after = get(client, before.headers["ETag"])
    assert [len(answer.get_json()["cases"]) for answer in (before, after)] == [2, 1]
