"""The files of sql/: the objects that they create, the rights of the role, and the plans of the query."""

import datetime as dt
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn

from medmitra_cases.cli.sample import insert_published_cases
from medmitra_cases.dao.statements import SELECT_CASES, SET_USER_ID, WHOLE_LIST, BoundQuery
from medmitra_cases.database.sql_files import read_sql, sql_directory
from medmitra_cases.errors import SqlFileError
from medmitra_cases.models import SORT_COLUMNS, CaseQuery
from tests.support.factories import (
    DOCTOR,
    LAYOUTS,
    PRODUCT_TABLE,
    UTC,
    CasesDatabase,
    case,
    client_on,
    execute,
)
from tests.support.plans import Plan

PARAMETERS = BoundQuery(CaseQuery(DOCTOR), DOCTOR, row_versions=True).parameters()

SNAPSHOT = """
    SELECT 'column', attrelid::regclass::text, attname,
        format_type(atttypid, atttypmod) || coalesce(attacl::text, '')
    FROM pg_attribute WHERE attrelid::regclass::text ~ '^(medmitra|public)[.]|^cases' AND attnum > 0
    UNION ALL SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), ''
    FROM pg_index WHERE indrelid::regclass::text ~ 'cases'
    UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid::regclass::text ~ 'cases'
    UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger
    WHERE NOT tgisinternal
    UNION ALL SELECT 'role', rolname, rolconfig::text, rolcanlogin::text
    FROM pg_roles WHERE rolname ~ '^medmitra'
    UNION ALL SELECT 'grants', oid::regclass::text, relacl::text, '' FROM pg_class
    WHERE oid::regclass::text ~ 'cases'
    UNION ALL SELECT 'policy', polname, polroles::text, pg_get_expr(polqual, polrelid) FROM pg_policy
    UNION ALL SELECT 'row security', oid::regclass::text, relrowsecurity::text, '' FROM pg_class
    WHERE oid::regclass::text ~ 'cases'
    UNION ALL SELECT 'view', oid::regclass::text, pg_get_viewdef(oid), '' FROM pg_class
    WHERE oid::regclass::text ~ 'cases' AND relkind = 'v'
    ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
def owner(empty_database: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(empty_database)) as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture
def service(database: CasesDatabase) -> Iterator[Connection]:
    """Open a session of the service's role."""
    with closing(psycopg2.connect(database.service_dsn)) as connection:
        connection.autocommit = True
        yield connection


@pytest.mark.parametrize("path", sorted(sql_directory().glob("*.sql")), ids=lambda path: str(path.name))
def test_every_file_begins_with_its_name_and_its_purpose(path: Any) -> None:
    name, purpose = path.read_text().splitlines()[:2]
    assert name == f"-- name: {path.stem}"
    assert re.match(r"-- \w.{20,}", purpose)


def test_the_error_names_a_missing_file() -> None:
    with pytest.raises(SqlFileError, match=r"sql/no_such_query\.sql"):
        read_sql("no_such_query")


def test_a_file_with_another_name_in_its_first_line_is_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "select_cases.sql").write_text("-- name: something_else\nSELECT 1")
    monkeypatch.setattr("medmitra_cases.database.sql_files.sql_directory", lambda: tmp_path)
    with pytest.raises(SqlFileError, match=r"select_cases\.sql does not begin with"):
        read_sql("select_cases")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_running_the_files_again_changes_nothing(owner: Connection, layout: Any) -> None:
    layout.create(owner)
    first = execute(owner, SNAPSHOT)
    for name in layout.files:
        execute(owner, read_sql(name))
    assert execute(owner, SNAPSHOT) == first
    assert len(first) > 20


def test_the_files_do_not_change_an_existing_table(owner: Connection) -> None:
    execute(owner, PRODUCT_TABLE)
    table = "SELECT oid, xmin, relacl FROM pg_class WHERE oid = 'public.cases'::regclass"
    before = execute(owner, table), execute(owner, SNAPSHOT)
    for name in ("existing_table", "roles"):
        execute(owner, read_sql(name))
    assert execute(owner, table) == before[0]
    assert set(before[1]) < set(execute(owner, SNAPSHOT))


def test_the_published_cases_are_inserted_once(owner: Connection) -> None:
    LAYOUTS["own_table"].create(owner)
    assert insert_published_cases(owner) == 2
    assert insert_published_cases(owner) == 0


def add(owner: Connection, **values: Any) -> None:
    columns = case(**values)
    statement = (
        f"INSERT INTO medmitra.cases ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"
    )
    execute(owner, statement, list(columns.values()))


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ("status = 'completed'", True),
        ("status = 'completed', updated_at = '1999-01-01'", True),
        ("case_summary = NULL, status = status", True),
        ("status = status", False),
        ("updated_at = '1999-01-01'", False),
        ("note = '{}'", True),
        ("note = note", False),
    ],
)
def test_updated_at_is_the_time_of_the_last_change(owner: Connection, change: str, touched: bool) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(owner, "ALTER TABLE medmitra.cases ADD COLUMN note json")
    long_ago = dt.datetime(2001, 1, 1, tzinfo=dt.timezone.utc)
    add(owner, status="pending", updated_at=long_ago)
    update = f"UPDATE medmitra.cases SET {change}; SELECT updated_at, now() FROM medmitra.cases"
    ((updated_at, now),) = execute(owner, update)
    assert updated_at == (now if touched else long_ago)


@pytest.mark.parametrize(
    "moment", ["infinity", "-infinity", "0001-12-31 23:59:59+00 BC", "10000-01-01 00:00:00+00"]
)
@pytest.mark.parametrize("column", ["created_at", "updated_at"])
def test_times_that_iso_8601_cannot_express_are_rejected(owner: Connection, column: str, moment: str) -> None:
    LAYOUTS["own_table"].create(owner)
    with pytest.raises(psycopg2.errors.CheckViolation):
        add(owner, **{column: moment})


def test_a_case_id_is_unique(owner: Connection) -> None:
    LAYOUTS["own_table"].create(owner)
    add(owner, case_id=DOCTOR)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        add(owner, case_id=DOCTOR.upper())


def test_optional_columns_have_defaults(owner: Connection) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(owner, "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender)"
                   " VALUES (%s, '', 0, '')", [DOCTOR])  # fmt: skip
    assert execute(
        owner, "SELECT case_summary, status, created_at = updated_at, case_id IS NULL FROM medmitra.cases"
    ) == [(None, "pending", True, False)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender) VALUES"
        " ('b8acad4b-4944-4d66-b405-de70886e7248', 'x', 1, 'x')",
        "UPDATE medmitra.cases SET status = 'completed'",
        "DELETE FROM medmitra.cases",
        "SELECT * FROM public.secrets",
        "SELECT note FROM medmitra.cases",
        "CREATE TABLE medmitra.mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SET ROLE pg_read_all_data",
    ],
)
def test_the_role_can_only_read_cases(owner: Connection, statement: str) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(owner, "CREATE TABLE public.secrets (x int); ALTER TABLE medmitra.cases ADD COLUMN note text")
    # The role can turn off its read-only default, so only the grants restrict it.
    execute(owner, "SET SESSION AUTHORIZATION medmitra_cases; SET default_transaction_read_only = off")
    execute(owner, ";\n".join(WHOLE_LIST.read), PARAMETERS)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        execute(owner, statement)


def test_a_view_without_row_versions_is_enough_for_body_etags(empty_database: str, owner: Connection) -> None:
    execute(owner, PRODUCT_TABLE)
    execute(owner, re.sub(r",\n    --[^\n]*\n    xmin\n", "\n", read_sql("existing_table")))
    execute(owner, read_sql("roles"))
    (name,) = execute(owner, "SELECT current_database()")[0]
    service_dsn = make_dsn(empty_database, dbname=name, user="medmitra_cases")
    with client_on(service_dsn, MEDMITRA_ETAG_SOURCE="body") as client:
        response = client.get(f"/cases/all_cases?user_id={DOCTOR}")
    assert response.get_json() == {"cases": []}
    assert response.headers["ETag"]


@pytest.mark.parametrize(
    "statement", ["TABLE public.cases", "UPDATE public.cases SET status = ''", "DELETE FROM medmitra.cases"]
)
def test_the_role_cannot_bypass_the_view(owner: Connection, statement: str) -> None:
    LAYOUTS["existing_table"].create(owner)
    execute(owner, "SET SESSION AUTHORIZATION medmitra_cases; SET default_transaction_read_only = off")
    execute(owner, ";\n".join(WHOLE_LIST.read), PARAMETERS)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        execute(owner, statement)


def test_a_role_with_other_powers_is_rejected(owner: Connection) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(owner, "ALTER ROLE medmitra_cases CREATEDB NOLOGIN")
    try:
        with pytest.raises(psycopg2.errors.RaiseException, match="powers that the service must not have"):
            execute(owner, read_sql("roles"))
    finally:
        execute(owner, "ROLLBACK; ALTER ROLE medmitra_cases NOCREATEDB")
    execute(owner, read_sql("roles"))
    assert execute(owner, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'medmitra_cases'") == [(True,)]


@pytest.mark.parametrize(
    "moment", ["infinity", "-infinity", "0001-12-31 23:59:59+00 BC", "10000-01-01 00:00:00+00"]
)
def test_the_view_hides_times_that_iso_8601_cannot_express(owner: Connection, moment: str) -> None:
    LAYOUTS["existing_table"].create(owner)
    execute(
        owner,
        "INSERT INTO public.cases"
        " (case_id, doctor_id, patient_name, patient_age, patient_gender, created_at, updated_at)"
        " VALUES ('1', %s, '', 0, '', %s, now())",
        [DOCTOR, moment],
    )
    ((*_, created_at, updated_at, _version),) = execute(owner, ";\n".join(WHOLE_LIST.read), PARAMETERS)
    assert created_at is None
    assert updated_at is not None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("statement_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("default_transaction_read_only", "on"),
        ("search_path", "medmitra, pg_catalog"),
        ("random_page_cost", "1.1"),
    ],
)
def test_sessions_have_the_settings_of_the_role(service: Connection, setting: str, value: str) -> None:
    assert execute(service, f"SHOW {setting}") == [(value,)]


@pytest.mark.parametrize("count", [50, 20_000])
def test_the_plan_is_one_ordered_index_scan(database: CasesDatabase, service: Connection, count: int) -> None:
    other_doctors = [str(uuid.uuid4()) for _ in range(500)]
    database.add_many(other_doctors, 100_000)
    database.add_many([DOCTOR], count)
    index = (
        "cases_doctor_id_id_idx" if database.layout is LAYOUTS["existing_table"] else "cases_user_id_id_idx"
    )
    for scan in scans(service):
        assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", index)
        assert "Filter" not in scan


def test_cases_of_interleaved_doctors_use_index_scans(database: CasesDatabase, service: Connection) -> None:
    database.add_many([DOCTOR, *(str(uuid.uuid4()) for _ in range(1999))], 100_050)
    assert [scan["Node Type"] for scan in scans(service)] == ["Index Scan"] * 3


@pytest.mark.parametrize("layout_database", ["partitioned"], indirect=True)
@pytest.mark.parametrize(
    "query",
    [
        CaseQuery(DOCTOR),
        CaseQuery(DOCTOR, limit=5, page=2),
        CaseQuery(DOCTOR, limit=5, sort_by="patient_name", sort_order="desc"),
        CaseQuery(DOCTOR, search="words"),
        CaseQuery(DOCTOR, limit=5, after=DOCTOR),
        CaseQuery(DOCTOR, limit=5, after=DOCTOR, sort_order="desc", status=("pending",)),
    ],
    ids=["list", "page", "sort", "search", "after", "after, backwards"],
)
def test_a_request_reads_one_partition(
    database: CasesDatabase, service: Connection, query: CaseQuery
) -> None:
    # So many cases of other doctors in each partition that the planner prefers the index.
    database.add_many([DOCTOR, *(str(uuid.UUID(int=number)) for number in range(1, 400))], 20_000)
    bound = BoundQuery(query, DOCTOR, row_versions=True)
    for statement in (
        bound.statements.declare,
        bound.statements.declare_sizes,
        bound.statements.select_version,  # decides about a 304
    ):
        explain = f"{SET_USER_ID}; EXPLAIN (FORMAT JSON) {statement}"
        plan = json.dumps(execute(service, explain, bound.parameters(sizes=True)))
        assert len(set(re.findall(r'"Relation Name": "(\w+)"', plan))) == 1, plan
        assert "Subplans Removed" not in plan
        assert "Index Name" in plan, plan


def test_partitioning_keeps_the_cases_and_who_may_read_them(owner: Connection, other_role: str) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(
        owner,
        "ALTER TABLE medmitra.cases ADD COLUMN note text, ADD COLUMN length int GENERATED ALWAYS AS"
        " (length(patient_name)) STORED;"
        f"GRANT SELECT (id, status), UPDATE (status) ON medmitra.cases TO {other_role} WITH GRANT OPTION;"
        f"CREATE POLICY adults ON medmitra.cases AS RESTRICTIVE FOR UPDATE TO {other_role}, medmitra_cases"
        " USING (patient_age > 17) WITH CHECK (true); ALTER TABLE medmitra.cases FORCE ROW LEVEL SECURITY;"
        "CREATE INDEX extra ON medmitra.cases (status)",
    )
    for _ in range(20):
        add(owner, user_id=str(uuid.uuid4()))
    execute(owner, "DELETE FROM medmitra.cases WHERE id > 18")
    kept = (
        "SELECT * FROM medmitra.cases ORDER BY id",
        "SELECT policyname, permissive, roles, cmd, qual, with_check FROM pg_policies ORDER BY policyname",
        "SELECT grantee, column_name, privilege_type, is_grantable FROM information_schema.column_privileges"
        " WHERE table_name = 'cases' ORDER BY 1, 2, 3, 4",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'medmitra.cases'::regclass AND contype IN ('c', 'n') ORDER BY 1",
        "SELECT relowner, relrowsecurity, relforcerowsecurity FROM pg_class"
        " WHERE oid = 'medmitra.cases'::regclass",
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'medmitra.cases'::regclass AND NOT tgisinternal",
    )
    before = [execute(owner, statement) for statement in kept]
    execute(owner, read_sql("partitioned"))
    assert [execute(owner, statement) for statement in kept] == before
    assert "the partitioned table does not have: medmitra.extra" in owner.notices[-1]
    add(owner)
    assert execute(owner, "SELECT max(id) FROM medmitra.cases") == [(21,)]
    assert execute(owner, "SELECT count(DISTINCT tableoid) > 1 FROM medmitra.cases") == [(True,)]


def test_partitioning_changes_nothing_if_a_view_depends_on_the_table(owner: Connection) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(owner, "CREATE VIEW public.report AS SELECT count(*) FROM medmitra.cases")
    before = execute(owner, SNAPSHOT)
    with pytest.raises(psycopg2.errors.DependentObjectsStillExist):
        execute(owner, read_sql("partitioned"))
    execute(owner, "ROLLBACK")
    assert execute(owner, SNAPSHOT) == before


def test_partitioning_rejects_a_view(owner: Connection) -> None:
    LAYOUTS["existing_table"].create(owner)
    with pytest.raises(psycopg2.errors.RaiseException, match=r"medmitra\.cases is not a table"):
        execute(owner, read_sql("partitioned"))


def scans(service: Connection) -> Iterator[dict[str, Any]]:
    """Yield the scan node of the query's three forms: with a limit, without, and in a cursor."""
    for prefix, limit in (("", 2_001), ("", None), ("DECLARE cases CURSOR FOR", None)):
        statement = f"EXPLAIN (FORMAT JSON) {prefix} {SELECT_CASES}"
        ((plan,),) = execute(service, statement, {**PARAMETERS, "limit": limit})
        node: dict[str, Any] = plan[0]["Plan"]
        if limit is not None:
            assert node["Node Type"] == "Limit", json.dumps(plan, indent=1)
            (node,) = node["Plans"]
        # The doctor's right to the cases is checked once, not for each row.
        assert node["Node Type"] == "Result", json.dumps(plan, indent=1)
        assert "medmitra.user_id" in node["One-Time Filter"]
        (node,) = node["Plans"]
        assert "Plans" not in node, json.dumps(plan, indent=1)
        yield node


def test_the_query_works_for_any_role_and_search_path(database: CasesDatabase) -> None:
    database.add(case())
    with closing(
        psycopg2.connect(make_dsn(database.owner_dsn, options="-c search_path=pg_catalog"))
    ) as other:
        assert len(execute(other, ";\n".join(WHOLE_LIST.read), PARAMETERS)) == 1


def test_the_plain_list_has_separate_statements() -> None:
    assert BoundQuery(CaseQuery(DOCTOR), DOCTOR, True).statements is WHOLE_LIST
    assert BoundQuery(CaseQuery(DOCTOR, sort_order="asc"), DOCTOR, True).statements is WHOLE_LIST
    assert BoundQuery(CaseQuery(DOCTOR, sort_order="desc"), DOCTOR, True).statements is not WHOLE_LIST


# For each filter: a value, and a text that only a plan with this filter contains.
FILTERS: dict[str, tuple[Any, str]] = {
    "status": (("pending",), "status"),
    "gender": (("female", "male"), "patient_gender"),
    "search": ("asha", "strpos"),
    "min_age": (18, "patient_age >= 18"),
    "max_age": (65, "patient_age <= 65"),
    "start_date": (dt.datetime(2026, 3, 4, 10, tzinfo=UTC), "2026-03-04 10:00:00"),
    "end_date": (dt.datetime(2026, 3, 5, 23, tzinfo=UTC), "2026-03-05 23:00:00"),
    "updated_since": (dt.datetime(2026, 3, 4, 11, tzinfo=UTC), "2026-03-04 11:00:00"),
    "after": (DOCTOR, "case_id = "),
}


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("names", [(), *((name,) for name in FILTERS), tuple(FILTERS)], ids="+".join)
def test_the_plan_contains_only_the_requested_filters(
    database: CasesDatabase, names: tuple[str, ...], limit: int | None
) -> None:
    query = CaseQuery(DOCTOR, sort_order="desc", limit=limit, **{name: FILTERS[name][0] for name in names})
    plan = str(Plan.of(database, query))
    assert {name for name, (_, text) in FILTERS.items() if text in plan} == {*names}


@pytest.mark.parametrize("sort_order", ["asc", "desc"])
@pytest.mark.parametrize("sort_by", SORT_COLUMNS)
def test_plans_sort_only_by_the_given_column(database: CasesDatabase, sort_by: str, sort_order: str) -> None:
    database.add(case(), case())
    plan = Plan.of(database, CaseQuery(DOCTOR, sort_by=sort_by, sort_order=sort_order, limit=5))
    ((key, second_key),) = [node["Sort Key"] for node in plan.page if "Sort Key" in node]
    assert sort_by in key
    assert key.endswith(" DESC NULLS LAST") == (sort_order == "desc")
    assert re.fullmatch(r"(\w+\.)?id", second_key)


@pytest.mark.parametrize(
    ("query", "column"),
    [
        (CaseQuery(DOCTOR, limit=5, status=("rare",)), "status"),
        (CaseQuery(DOCTOR, limit=5, gender=("rare",)), "patient_gender"),
        (CaseQuery(DOCTOR, limit=5, status=("rare", "none")), "status"),
    ],
)
def test_an_index_serves_a_filter_by_text(database: CasesDatabase, query: CaseQuery, column: str) -> None:
    relation, doctor = database.layout.relation, database.layout.owner_column
    database.add_many([DOCTOR], 5_000)
    execute(database.owner, f"CREATE INDEX by_text ON {relation} ({doctor}, {column}, id)")
    try:
        execute(
            database.owner, f"UPDATE {relation} SET {column} = 'rare' WHERE id % 1000 = 0; ANALYZE {relation}"
        )
        plan = Plan.of(database, query)
        assert "by_text" in str(plan)
        assert ("ANY" in str(plan)) == (len(query.status or query.gender or ()) > 1)
        assert plan.rows_read < 100
    finally:
        execute(
            database.owner,
            f"DROP INDEX {'medmitra' if relation.startswith('medmitra') else 'public'}.by_text",
        )


@pytest.mark.parametrize("count", [50, 5_000])
def test_the_index_gives_the_insertion_order_in_both_directions(database: CasesDatabase, count: int) -> None:
    database.add_many([str(uuid.uuid4()) for _ in range(100)], 20_000)
    database.add_many([DOCTOR], count)
    first = CaseQuery(DOCTOR, limit=5)
    for query, direction in ((first, "Forward"), (first._replace(sort_order="desc"), "Backward")):
        plan = Plan.of(database, query)
        (*above, scan) = plan.page
        assert [node["Node Type"] for node in above] == ["Limit", "Result"], plan
        assert (scan["Node Type"], scan["Scan Direction"]) == ("Index Scan", direction)
        assert scan["Index Name"].endswith("_id_id_idx")
        assert (scan["Actual Rows"], "Filter" in scan) == (5, False)


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
def test_another_doctors_case_is_no_cursor_even_if_the_role_sees_all_cases(database: CasesDatabase) -> None:
    other, own = case(user_id=DOCTOR[:-1] + "7"), case()
    database.add(other, own)
    query = CaseQuery(DOCTOR, after=other["case_id"])
    bound = BoundQuery(query, DOCTOR, row_versions=True)
    assert execute(database.owner, ";\n".join(bound.statements.read), bound.parameters()) == []
