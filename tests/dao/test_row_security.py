"""The database itself shows the service one doctor's cases at a time, whatever the query asks for."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from flask.testing import FlaskClient

from medmitra_cases.cli.sample import insert_published_cases
from medmitra_cases.dao import statements
from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.fetch import fetch_cases
from medmitra_cases.dao.statements import SET_USER_ID, BoundQuery, Statements
from medmitra_cases.database.connection import Connection, connect
from medmitra_cases.database.sql_files import read_sql
from medmitra_cases.models import CaseQuery
from medmitra_cases.responses import cases
from tests.support.factories import DOCTOR, LAYOUTS, CasesDatabase, case, execute, in_json

ASKED = f"/cases/all_cases?user_id={DOCTOR}"
QUERIES = (CaseQuery(DOCTOR), CaseQuery(DOCTOR, min_age=0, limit=5))
OTHER = DOCTOR[:-1] + "7"
CONDITION = "user_id = %(user_id)s::uuid"


@pytest.fixture
def service(database: CasesDatabase) -> Iterator[Connection]:
    """A session of the service's own role."""
    with closing(connect(database.service_dsn)) as connection:
        yield connection


@pytest.fixture
def _without_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries that ask for the cases of all doctors."""
    for name in ("WHOLE_LIST", "FILTERED"):
        asking: Statements = getattr(statements, name)
        assert all(CONDITION in statement for statement in asking)
        careless = Statements(*(statement.replace(CONDITION, "true") for statement in asking))
        monkeypatch.setattr(statements, name, careless)


def doctors(connection: Connection) -> list[str]:
    return [user_id for (user_id,) in execute(connection, "SELECT user_id FROM medmitra.cases")]


@pytest.mark.usefixtures("_without_condition")
def test_a_query_that_asks_for_all_cases_gets_one_doctors(
    client: FlaskClient, database: CasesDatabase
) -> None:
    mine = [case(), case()]
    database.add(*mine)
    for asked in (ASKED, f"{ASKED}&min_age=0", f"{ASKED}&page=1"):
        answer = client.get(asked)
        assert answer.get_json() == {"cases": [in_json(columns) for columns in mine]}
        assert answer.headers.get("X-Total-Count", "2") == "2"
        assert client.get(asked, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


@pytest.mark.usefixtures("_without_condition")
def test_a_long_list_too(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "WHOLE_CASES", 20)
    monkeypatch.setattr(cases, "CHUNK_CASES", 10)
    database.add_many([DOCTOR, OTHER], 100)
    found = client.get(ASKED).get_json()["cases"]
    assert [columns["user_id"] for columns in found] == [DOCTOR] * 50


def test_of_another_doctors_cases_none_is_shown(database: CasesDatabase, service: Connection) -> None:
    database.add(case())
    for query in QUERIES:
        fetched = fetch_cases(service, BoundQuery(query, OTHER, True), 10)
        assert fetched is not None
        assert fetched[0].rows == []
        batches = CaseBatches(service, BoundQuery(query, OTHER, True), 10)
        assert list(batches) == []


def test_who_has_not_said_whose_sees_none(database: CasesDatabase, service: Connection) -> None:
    database.add(case())
    assert doctors(service) == []
    for query in QUERIES:
        fetched = fetch_cases(service, BoundQuery(query, DOCTOR, True), 10)
        assert fetched is not None
        assert len(fetched[0].rows) == 1
        # What was said held for that transaction only: behind PgBouncer the next may be another client's.
        assert doctors(service) == []


@pytest.fixture
def owner(empty_database: str) -> Iterator[Connection]:
    with closing(connect(empty_database)) as connection:
        yield connection


def as_role(owner: Connection, name: str) -> None:
    execute(owner, f"RESET SESSION AUTHORIZATION; SET SESSION AUTHORIZATION {name}")


@pytest.fixture
def writer(owner: Connection) -> Iterator[str]:
    """A role as the product's backend may have, which fills the table."""
    execute(owner, "CREATE ROLE medmitra_test_writer")
    yield "medmitra_test_writer"
    execute(
        owner,
        "RESET SESSION AUTHORIZATION; DROP OWNED BY medmitra_test_writer; DROP ROLE medmitra_test_writer",
    )


def test_for_other_roles_their_grants_decide(owner: Connection, writer: str) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(
        owner,
        f"GRANT USAGE ON SCHEMA medmitra TO {writer};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON medmitra.cases TO {writer}",
    )
    as_role(owner, writer)
    for user_id in (DOCTOR, OTHER):
        execute(
            owner,
            "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender)"
            " VALUES (%s, 'Ada', 36, 'female')",
            [user_id],
        )
    execute(owner, "UPDATE medmitra.cases SET status = 'completed'")
    assert doctors(owner) == [DOCTOR, OTHER]
    execute(owner, "DELETE FROM medmitra.cases WHERE user_id = %s", [OTHER])
    assert doctors(owner) == [DOCTOR]


def test_who_may_act_as_the_service_is_bound_like_it(owner: Connection, writer: str) -> None:
    LAYOUTS["own_table"].create(owner)
    insert_published_cases(owner)
    execute(owner, f"GRANT medmitra_cases TO {writer}")
    as_role(owner, writer)
    assert doctors(owner) == []
    assert len(execute(owner, f"{SET_USER_ID}; TABLE medmitra.cases", {"subject": DOCTOR})) == 2


def test_row_security_of_the_owners_own_is_not_opened(owner: Connection, writer: str) -> None:
    execute(owner, read_sql("schema"))
    execute(
        owner,
        f"ALTER TABLE medmitra.cases ENABLE ROW LEVEL SECURITY;"
        f"GRANT USAGE ON SCHEMA medmitra TO {writer}; GRANT SELECT ON medmitra.cases TO {writer}",
    )
    execute(owner, read_sql("roles"))
    insert_published_cases(owner)
    as_role(owner, writer)
    assert doctors(owner) == []


@pytest.mark.parametrize(
    "policies",
    ["", "DROP POLICY as_granted ON medmitra.cases; DROP POLICY one_doctor ON medmitra.cases"],
    ids=["switched off", "never had"],
)
def test_a_table_without_it_gets_it_when_roles_sql_is_run_again(owner: Connection, policies: str) -> None:
    LAYOUTS["own_table"].create(owner)
    insert_published_cases(owner)
    execute(owner, f"ALTER TABLE medmitra.cases DISABLE ROW LEVEL SECURITY; {policies}")
    execute(owner, read_sql("roles"))
    as_role(owner, "medmitra_cases")
    assert doctors(owner) == []
