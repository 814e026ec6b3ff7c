"""Row-level security: the database shows the service one doctor's cases at a time, whatever the query is."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from flask.testing import FlaskClient

from medmitra_cases.cli.sample import insert_published_cases
from medmitra_cases.dao import statements
from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.statements import SET_USER_ID, BoundQuery, Statements
from medmitra_cases.dao.whole import fetch_cases
from medmitra_cases.database.connection import Connection, connect
from medmitra_cases.database.sql_files import read_sql
from medmitra_cases.models import CaseQuery
from medmitra_cases.responses import cases
from tests.support.factories import DOCTOR, LAYOUTS, CasesDatabase, case, execute, in_json

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"
QUERIES = (CaseQuery(DOCTOR), CaseQuery(DOCTOR, min_age=0, limit=5))
OTHER = DOCTOR[:-1] + "7"
CONDITION = "user_id = %(user_id)s::uuid"


on_every_layout = pytest.mark.parametrize("layout_database", list(LAYOUTS), indirect=True)


@pytest.fixture
def service(database: CasesDatabase) -> Iterator[Connection]:
    """A connection with the role of the service."""
    with closing(connect(database.service_dsn)) as connection:
        yield connection


@pytest.fixture
def _without_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the condition on the doctor from the queries of the service."""
    for name in ("WHOLE_LIST", "FILTERED"):
        original: Statements = getattr(statements, name)
        selects = (original.read[1], original.select_version)
        assert all(CONDITION in select for select in selects)
        changed = Statements.of(*(select.replace(CONDITION, "true") for select in selects))
        monkeypatch.setattr(statements, name, changed)


def doctors(connection: Connection) -> list[str]:
    return [user_id for (user_id,) in execute(connection, "SELECT user_id FROM medmitra.cases")]


@on_every_layout
@pytest.mark.usefixtures("_without_condition")
def test_a_query_for_all_cases_returns_one_doctors(client: FlaskClient, database: CasesDatabase) -> None:
    added = [case(), case()]
    database.add(*added)
    for url in (CASES_URL, f"{CASES_URL}&min_age=0", f"{CASES_URL}&page=1"):
        response = client.get(url)
        assert response.get_json() == {"cases": [in_json(columns) for columns in added]}
        assert response.headers.get("X-Total-Count", "2") == "2"
        assert client.get(url, headers={"If-None-Match": response.headers["ETag"]}).status_code == 304


@on_every_layout
@pytest.mark.usefixtures("_without_condition")
def test_a_streamed_query_for_all_cases_returns_one_doctors(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "WHOLE_CASES", 20)
    monkeypatch.setattr(cases, "CHUNK_CASES", 10)
    database.add_many([DOCTOR, OTHER], 100)
    found = client.get(CASES_URL).get_json()["cases"]
    assert [columns["user_id"] for columns in found] == [DOCTOR] * 50


@on_every_layout
def test_another_doctors_cases_are_not_shown(database: CasesDatabase, service: Connection) -> None:
    database.add(case())
    for query in QUERIES:
        fetched = fetch_cases(service, BoundQuery(query, OTHER, True), 10)
        assert fetched is not None
        assert fetched[0].rows == []
        batches = CaseBatches(service, BoundQuery(query, OTHER, True), 10)
        assert list(batches) == []


@on_every_layout
def test_no_cases_are_shown_if_no_doctor_is_set(database: CasesDatabase, service: Connection) -> None:
    database.add(case())
    assert doctors(service) == []
    for query in QUERIES:
        fetched = fetch_cases(service, BoundQuery(query, DOCTOR, True), 10)
        assert fetched is not None
        assert len(fetched[0].rows) == 1
        # The doctor was set for that transaction only. Behind PgBouncer the next one may be another client's.
        assert doctors(service) == []


@pytest.fixture
def owner(empty_database: str) -> Iterator[Connection]:
    with closing(connect(empty_database)) as connection:
        yield connection


def as_role(owner: Connection, name: str) -> None:
    execute(owner, f"RESET SESSION AUTHORIZATION; SET SESSION AUTHORIZATION {name}")


def test_other_roles_are_limited_by_their_grants_only(owner: Connection, other_role: str) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(
        owner,
        f"GRANT USAGE ON SCHEMA medmitra TO {other_role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON medmitra.cases TO {other_role}",
    )
    as_role(owner, other_role)
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


def test_a_member_of_the_services_role_is_limited_like_the_service(
    owner: Connection, other_role: str
) -> None:
    LAYOUTS["own_table"].create(owner)
    insert_published_cases(owner)
    execute(owner, f"GRANT medmitra_cases TO {other_role}")
    as_role(owner, other_role)
    assert doctors(owner) == []
    assert len(execute(owner, f"{SET_USER_ID}; TABLE medmitra.cases", {"subject": DOCTOR})) == 2


def test_roles_sql_adds_no_access_if_the_owner_enabled_row_security(
    owner: Connection, other_role: str
) -> None:
    execute(owner, read_sql("schema"))
    execute(
        owner,
        f"ALTER TABLE medmitra.cases ENABLE ROW LEVEL SECURITY;"
        f"GRANT USAGE ON SCHEMA medmitra TO {other_role}; GRANT SELECT ON medmitra.cases TO {other_role}",
    )
    execute(owner, read_sql("roles"))
    insert_published_cases(owner)
    as_role(owner, other_role)
    assert doctors(owner) == []
    as_role(owner, "medmitra_cases")
    assert len(execute(owner, f"{SET_USER_ID}; TABLE medmitra.cases", {"subject": DOCTOR})) == 2


@pytest.mark.parametrize("policy", ["as_granted", "one_doctor", "one_doctor_permissive"])
def test_roles_sql_mends_one_dropped_policy(owner: Connection, other_role: str, policy: str) -> None:
    LAYOUTS["own_table"].create(owner)
    insert_published_cases(owner)
    execute(
        owner,
        f"GRANT USAGE ON SCHEMA medmitra TO {other_role};"
        f"GRANT SELECT ON medmitra.cases TO {other_role};"
        f"DROP POLICY {policy} ON medmitra.cases",
    )
    as_role(owner, other_role)
    seen_by_others = doctors(owner)
    execute(owner, f"RESET SESSION AUTHORIZATION; {read_sql('roles')}")
    as_role(owner, other_role)
    assert doctors(owner) == seen_by_others
    as_role(owner, "medmitra_cases")
    assert doctors(owner) == []
    assert len(execute(owner, f"{SET_USER_ID}; TABLE medmitra.cases", {"subject": DOCTOR})) == 2


@pytest.mark.parametrize(
    "policies",
    [
        "",
        "DROP POLICY as_granted ON medmitra.cases; DROP POLICY one_doctor ON medmitra.cases;"
        "DROP POLICY one_doctor_permissive ON medmitra.cases",
    ],
    ids=["disabled", "without policies"],
)
def test_roles_sql_enables_row_security_again(owner: Connection, policies: str) -> None:
    LAYOUTS["own_table"].create(owner)
    insert_published_cases(owner)
    execute(owner, f"ALTER TABLE medmitra.cases DISABLE ROW LEVEL SECURITY; {policies}")
    execute(owner, read_sql("roles"))
    as_role(owner, "medmitra_cases")
    assert doctors(owner) == []


def test_one_doctor_is_shown_even_if_all_policies_are_permissive(owner: Connection) -> None:
    """Citus makes them so on its shards."""
    LAYOUTS["own_table"].create(owner)
    insert_published_cases(owner)
    restrictive = "SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy WHERE NOT polpermissive"
    for name, condition in execute(owner, restrictive):
        execute(
            owner,
            f"DROP POLICY {name} ON medmitra.cases;"
            f"CREATE POLICY {name} ON medmitra.cases TO medmitra_cases USING ({condition})",
        )
    as_role(owner, "medmitra_cases")
    assert doctors(owner) == []
    assert execute(owner, f"{SET_USER_ID}; TABLE medmitra.cases", {"subject": OTHER}) == []
    assert len(execute(owner, f"{SET_USER_ID}; SELECT id FROM medmitra.cases", {"subject": DOCTOR})) == 2


def test_roles_sql_replaces_the_policy_of_an_earlier_version(owner: Connection) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(
        owner,
        "DROP POLICY one_doctor_permissive ON medmitra.cases;"
        "ALTER POLICY as_granted ON medmitra.cases USING (true)",
    )
    execute(owner, read_sql("roles"))
    policies = "SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy ORDER BY polname"
    assert [name for name, condition in execute(owner, policies) if "medmitra.user_id" in condition] == [
        "one_doctor",
        "one_doctor_permissive",
    ]
    assert ("as_granted", "medmitra.is_other_role()") in execute(owner, policies)


def test_the_plan_of_another_role_is_not_used_for_the_services(owner: Connection, other_role: str) -> None:
    LAYOUTS["own_table"].create(owner)
    insert_published_cases(owner)
    execute(
        owner,
        f"GRANT USAGE ON SCHEMA medmitra TO {other_role};"
        f"GRANT SELECT ON medmitra.cases TO {other_role};"
        "SET plan_cache_mode = force_generic_plan;"
        "PREPARE everything AS SELECT user_id FROM medmitra.cases",
    )
    for name, count in ((other_role, 2), ("medmitra_cases", 0), (other_role, 2)):
        as_role(owner, name)
        assert len(execute(owner, "EXECUTE everything")) == count


def test_other_roles_need_no_right_to_functions(owner: Connection, other_role: str) -> None:
    execute(owner, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    LAYOUTS["own_table"].create(owner)
    insert_published_cases(owner)
    execute(
        owner,
        f"GRANT USAGE ON SCHEMA medmitra TO {other_role};GRANT SELECT ON medmitra.cases TO {other_role}",
    )
    as_role(owner, other_role)
    assert doctors(owner) == [DOCTOR, DOCTOR]
