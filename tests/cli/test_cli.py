"""The commands init-db, load-sample, check and token, run as an operator runs them."""

import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import quote

import psycopg2
import pytest
from click.testing import CliRunner, Result
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases import __version__
from medmitra_cases.cli.main import main
from medmitra_cases.database.connection import connect
from medmitra_cases.database.sql_files import read_sql, sql_directory
from medmitra_cases.testing.postgres import new_database
from tests.support.factories import DOCTOR, LAYOUTS, MAIN_LAYOUTS, PRODUCT_TABLE, Layout, client_on, execute
from tests.support.processes import COMMAND, TIMEOUT_SECONDS, environment, run_program
from tests.support.processes import run as run_process
from tests.support.snippets import PATH
from tests.support.terminals import run_on_terminal
from tests.support.tokens import SECRET


@pytest.fixture
def owner(empty_database: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(empty_database)) as connection:
        connection.autocommit = True
        yield connection


def run(*arguments: str, url: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"DATABASE_URL": url})


def run_ok(*arguments: str, url: str) -> str:
    result = run(*arguments, url=url)
    assert result.exit_code == 0, result.output
    return result.output


def as_uri(dsn: str) -> str:
    """Return the connection string as a URI."""
    parts = parse_dsn(dsn)
    login = quote(parts["user"]) + (f":{quote(parts['password'])}" if "password" in parts else "")
    address = f"{quote(parts['host'], safe='')}:{parts.get('port', 5432)}"
    return f"postgresql://{login}@{address}/{parts['dbname']}"


def test_the_version_option_prints_the_version() -> None:
    assert __version__ in run_ok("--version", url="")


@pytest.mark.parametrize("write", [str, as_uri], ids=["key=value", "URI"])
def test_init_db_creates_the_table_and_reports_it(
    empty_database: str, owner: Connection, write: type[str]
) -> None:
    output = run_ok("init-db", url=write(empty_database))
    assert output.startswith("Created the table medmitra.cases")
    assert str(sql_directory() / "roles.sql") in output
    assert execute(owner, "SELECT count(*) FROM medmitra.cases") == [(0,)]


def test_a_second_init_db_keeps_the_cases(empty_database: str, owner: Connection) -> None:
    run_ok("init-db", url=empty_database)
    run_ok("load-sample", url=empty_database)
    assert run_ok("init-db", url=empty_database).startswith("The table medmitra.cases already exists")
    assert execute(owner, "SELECT count(*) FROM medmitra.cases") == [(2,)]


def test_load_sample_inserts_the_published_cases_once(empty_database: str, owner: Connection) -> None:
    run_ok("init-db", url=empty_database)
    assert run_ok("load-sample", url=empty_database).startswith("Inserted 2 of the 2 published cases")
    assert run_ok("load-sample", url=empty_database).startswith("Inserted 0 of the 2 published cases")
    assert execute(owner, "SELECT user_id, patient_name FROM medmitra.cases ORDER BY id") == [
        (DOCTOR, "John Doe"),
        (DOCTOR, "Jane Smith"),
    ]


def test_init_db_and_load_sample_work_on_a_partitioned_table(empty_database: str, owner: Connection) -> None:
    LAYOUTS["partitioned"].create(owner)
    assert run_ok("init-db", url=empty_database).startswith("The table medmitra.cases already exists")
    assert run_ok("load-sample", url=empty_database).startswith("Inserted 2 of the 2 published cases")
    assert run_ok("load-sample", url=empty_database).startswith("Inserted 0 of the 2 published cases")
    run_ok("load-sample", "--user", DOCTOR, "--cases", "100", url=empty_database)
    assert execute(owner, "SELECT count(*) FROM medmitra.cases") == [(102,)]
    # init-db creates no second index on (user_id, id).
    assert execute(owner, "SELECT indkey::text FROM pg_index WHERE indrelid = 'medmitra.cases'::regclass"
                          " ORDER BY indkey::text") == [("3 1",), ("3 2",)]  # fmt: skip


def test_load_sample_generates_cases_of_one_doctor(empty_database: str, owner: Connection) -> None:
    doctor = str(uuid.uuid4())
    run_ok("init-db", url=empty_database)
    run_ok("load-sample", url=empty_database)
    output = run_ok("load-sample", "--user", doctor, "--cases", "10001", url=empty_database)
    assert f"Inserted 10001 cases of {doctor}." in output
    ((count, plausible, ordered, names),) = execute(
        owner,
        """
        SELECT count(*),
            bool_and(patient_age BETWEEN 0 AND 120 AND created_at <= updated_at AND updated_at <= now()
                AND patient_name ~ '. .' AND status <> '' AND patient_gender <> ''),
            array_agg(id ORDER BY id) = array_agg(id ORDER BY created_at),
            count(DISTINCT patient_name)
        FROM medmitra.cases WHERE user_id = %s
        """,
        [doctor],
    )
    assert (count, plausible, ordered) == (10001, True, True)
    assert names > 100
    assert execute(owner, "SELECT count(*) FROM medmitra.cases") == [(10003,)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--user", DOCTOR],
        ["--cases", "3"],
        ["--user", "me", "--cases", "3"],
        ["--user", DOCTOR, "--cases", "0"],
    ],
)
def test_load_sample_rejects_incomplete_or_invalid_options(empty_database: str, arguments: list[str]) -> None:
    result = run("load-sample", *arguments, url=empty_database)
    assert result.exit_code == 2
    assert "Error: " in result.output


@pytest.mark.parametrize("command", ["init-db", "load-sample"])
def test_commands_reject_a_view_as_the_table(empty_database: str, owner: Connection, command: str) -> None:
    LAYOUTS["existing_table"].create(owner)
    result = run(command, url=empty_database)
    assert result.exit_code == 1
    assert "medmitra.cases is a view, not the service's own table" in result.output
    assert execute(owner, "SELECT count(*) FROM public.cases") == [(0,)]


@pytest.mark.parametrize("command", ["init-db", "load-sample", "check"])
def test_commands_report_an_unreachable_database_in_one_line(command: str) -> None:
    result = run(command, url="postgresql://reader:hunter2@127.0.0.1:1/clinic")
    assert result.exit_code == 1
    assert result.output.startswith("Error: database: connection to server")
    assert result.output.count("\n") == 1
    assert "hunter2" not in result.output


def test_load_sample_reports_a_missing_table_in_one_line(empty_database: str) -> None:
    result = run("load-sample", url=empty_database)
    assert result.exit_code == 1
    assert result.output == "Error: the table medmitra.cases does not exist: run medmitra-cases init-db\n"


@pytest.mark.parametrize("layout", list(LAYOUTS.values()), ids=LAYOUTS)
def test_check_passes_on_each_table_layout(empty_database: str, owner: Connection, layout: Layout) -> None:
    layout.create(owner)
    password = parse_dsn(empty_database).get("password")
    if password:
        execute(owner, "ALTER ROLE medmitra_cases PASSWORD %s", [password])
    output = run_ok("check", url=make_dsn(empty_database, user="medmitra_cases"))
    advice = [line for line in output.splitlines() if line.startswith("!")]
    if layout is LAYOUTS["foreign_partitions"]:
        assert [line[:16] for line in advice] == ["! another server", "! ETags are made"], output
        assert "foreign table" in advice[1]
    elif layout is LAYOUTS["marked_as_distributed"]:
        assert [line[:16] for line in advice] == ["! another server"], output
    else:
        assert advice == []
        assert output.endswith("\nReady to serve: all 13 checks passed.\n")
    assert "✓ the role sees the cases of one doctor at a time" in output


def test_check_of_an_empty_database_names_both_table_layouts(empty_database: str) -> None:
    result = run("check", url=empty_database)
    assert result.exit_code == 1
    assert "✗ there is no table or view medmitra.cases" in result.output
    assert "init-db" in result.output
    assert "existing_table.sql" in result.output
    assert result.output.endswith("\nNot ready to serve: 1 of 3 checks failed (✗).\n")


@pytest.mark.parametrize(
    ("change", "found", "hint"),
    [
        ("ALTER TABLE medmitra.cases DROP COLUMN status", "✗ medmitra.cases.status is missing", "schema.sql"),
        (
            "ALTER TABLE medmitra.cases ALTER patient_age TYPE text",
            "✗ medmitra.cases.patient_age is text, not bigint or integer or smallint",
            "schema.sql",
        ),
        (
            "DROP POLICY one_doctor ON medmitra.cases; DROP POLICY one_doctor_permissive ON medmitra.cases;"
            "ALTER TABLE medmitra.cases ALTER user_id TYPE text",
            "✗ medmitra.cases.user_id is text, not uuid",
            "schema.sql",
        ),
        ("DROP INDEX medmitra.cases_user_id_id_idx", "✗ no index returns the cases", "schema.sql"),
        (
            "REVOKE SELECT (status, patient_age) ON medmitra.cases FROM medmitra_cases",
            "✗ the role may not read these columns of medmitra.cases: patient_age, status",
            "roles.sql",
        ),
        (
            "REVOKE USAGE ON SCHEMA medmitra FROM medmitra_cases",
            "✗ the role may not read these columns of medmitra.cases: id, case_id",
            "roles.sql",
        ),
    ],
)
def test_check_reports_what_is_missing(
    empty_database: str, owner: Connection, change: str, found: str, hint: str
) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(owner, change)
    execute(owner, "GRANT medmitra_cases TO CURRENT_USER")
    result = run("check", url=make_dsn(empty_database, options="-c role=medmitra_cases"))
    assert result.exit_code == 1
    lines = result.output.splitlines()
    (position,) = (number for number, line in enumerate(lines) if line.startswith("✗"))
    assert lines[position].startswith(found)
    assert hint in lines[position + 1]


# The shell command of a hint: up to the path of a file, or the whole one without a file.
HINTED = re.compile(r'(?:DATABASE_URL=|psql )"\$\{OWNER_URL.+?(?:\.sql| init-db)')


@pytest.mark.parametrize(
    ("prepare", "change"),
    [
        (False, "CREATE SCHEMA other"),
        (True, "DROP INDEX medmitra.cases_user_id_id_idx"),
        (True, "REVOKE SELECT ON medmitra.cases FROM medmitra_cases"),
        (True, "REVOKE SELECT (xmin) ON medmitra.cases FROM medmitra_cases"),
    ],
    ids=["no table", "no index", "no rights", "no row versions"],
)
def test_the_commands_of_the_hints_connect_as_the_owner(
    empty_database: str, owner: Connection, prepare: bool, change: str
) -> None:
    if prepare:
        LAYOUTS["own_table"].create(owner)
    execute(owner, change)
    service_url = make_dsn(empty_database, user="medmitra_cases")
    output = run("check", url=service_url).output
    commands = [found for found in HINTED.findall(output) if "existing_table" not in found]
    assert len(commands) == 1, output
    variables = {"DATABASE_URL": service_url, "PATH": PATH}
    without = run_program(["bash", "-c", commands[0]], variables)
    assert without.returncode != 0
    assert "OWNER_URL: set it to the address of this database for its owner" in without.stderr
    as_owner = run_program(["bash", "-c", commands[0]], {**variables, "OWNER_URL": empty_database})
    assert as_owner.returncode == 0, as_owner.stderr
    if not prepare:
        execute(owner, read_sql("roles"))
    run_ok("check", url=service_url)


def test_check_finds_the_missing_index_of_an_existing_table(empty_database: str, owner: Connection) -> None:
    execute(owner, PRODUCT_TABLE)
    execute(owner, read_sql("existing_table"))
    result = run("check", url=empty_database)
    assert result.exit_code == 1
    assert "✗ no index" in result.output
    assert "existing_table_index.sql" in result.output


def test_check_warns_about_a_role_with_unnecessary_rights(empty_database: str, owner: Connection) -> None:
    LAYOUTS["existing_table"].create(owner)
    output = run_ok(
        "check", url=make_dsn(empty_database, options="-c statement_timeout=0 -c random_page_cost=4")
    )
    assert "! the role may write to medmitra.cases" in output
    assert "! statement_timeout is 0" in output
    assert "✗" not in output
    assert "! random_page_cost is 4" in output
    *lines, summary = output.splitlines()
    assert summary == "Ready to serve; 3 of 13 checks recommend a change (!)."
    advice = [number for number, line in enumerate(lines) if line.startswith("!")]
    assert len(advice) == 3
    assert all(re.match("  → .", lines[number + 1]) for number in advice)


@pytest.mark.parametrize(
    ("limit", "reset", "threads", "words"),
    [
        (
            "ALTER ROLE medmitra_cases CONNECTION LIMIT 8",
            "ALTER ROLE medmitra_cases CONNECTION LIMIT -1",
            "4",
            ("up to 9 connections", "CONNECTION LIMIT of role medmitra_cases allows only 8"),
        ),
        (
            "ALTER DATABASE {} CONNECTION LIMIT 8",
            "ALTER DATABASE {} CONNECTION LIMIT -1",
            "4",
            ("up to 9 connections", "allows only 8"),
        ),
        ("SELECT", "SELECT", "256", ("up to 513 connections", "max_connections")),
    ],
)
def test_check_compares_the_limits_of_connections_with_the_need(
    empty_database: str,
    owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    reset: str,
    threads: str,
    words: tuple[str, ...],
) -> None:
    LAYOUTS["own_table"].create(owner)
    ((name,),) = execute(owner, "SELECT current_database()")
    monkeypatch.setenv("MEDMITRA_THREADS", threads)
    url = make_dsn(empty_database, user="medmitra_cases")
    execute(owner, limit.format(name))
    try:
        output = run_ok("check", url=url)
    finally:
        execute(owner, reset.format(name))
    (place,) = (
        n for n, line in enumerate(output.splitlines()) if "connections (2 x MEDMITRA_THREADS + 1)" in line
    )
    line, hint = output.splitlines()[place : place + 2]
    assert line.startswith("!")
    assert all(word in line for word in words)
    assert "MEDMITRA_THREADS" in hint
    monkeypatch.setenv("MEDMITRA_THREADS", "2")
    assert "✓ a process of the service uses up to 5 connections" in run_ok("check", url=url)


@pytest.mark.parametrize("timeout", ["0", "2min", "5001", "6s"])
def test_check_advises_against_a_role_whose_statements_may_run_for_long(
    empty_database: str, owner: Connection, timeout: str
) -> None:
    LAYOUTS["own_table"].create(owner)
    options = f"-c statement_timeout={timeout}"
    output = run_ok("check", url=make_dsn(empty_database, user="medmitra_cases", options=options))
    assert "! statement_timeout is " in output
    assert "ALTER ROLE medmitra_cases SET statement_timeout = '5s'" in output


@pytest.mark.parametrize("grant", ["UPDATE (status)", "INSERT", "DELETE", "TRUNCATE"])
@pytest.mark.parametrize("relation", ["medmitra.cases", "public.cases"])
def test_check_warns_about_every_right_to_write(
    empty_database: str, owner: Connection, grant: str, relation: str
) -> None:
    LAYOUTS["existing_table"].create(owner)
    execute(owner, f"GRANT {grant} ON {relation} TO medmitra_cases")
    output = run_ok("check", url=make_dsn(empty_database, options="-c role=medmitra_cases"))
    assert "! the role may write to medmitra.cases" in output


def test_check_finds_an_invalid_index(empty_database: str, owner: Connection) -> None:
    layout = LAYOUTS["existing_table"]
    layout.create(owner)
    # An interrupted CREATE INDEX CONCURRENTLY leaves such an index.
    execute(owner, "UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text ~ 'doctor_id'")
    result = run("check", url=empty_database)
    assert result.exit_code == 1
    assert "DROP INDEX CONCURRENTLY public.cases_doctor_id_id_idx; then create" in result.output


def test_check_warns_about_row_level_security(empty_database: str, owner: Connection) -> None:
    LAYOUTS["existing_table"].create(owner)
    execute(owner, "ALTER TABLE public.cases ENABLE ROW LEVEL SECURITY")
    assert "row level security" not in run_ok("check", url=empty_database)
    execute(owner, "GRANT USAGE, CREATE ON SCHEMA medmitra TO medmitra_cases")
    execute(owner, "GRANT SELECT ON public.cases TO medmitra_cases")
    execute(owner, "ALTER VIEW medmitra.cases OWNER TO medmitra_cases")
    execute(owner, "CREATE POLICY own ON public.cases USING (patient_age > 0)")
    assert "! row level security of public.cases may hide cases" in run_ok("check", url=empty_database)


# A role that is not the reader, a policy that only restricts, and one that is not for reading.
@pytest.mark.parametrize(
    "policy",
    [
        None,
        "CREATE POLICY p ON {} TO pg_monitor USING (true)",
        "CREATE POLICY p ON {} AS RESTRICTIVE USING (true)",
        "CREATE POLICY p ON {} FOR UPDATE USING (true)",
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_check_fails_if_no_policy_admits_the_role(
    empty_database: str, owner: Connection, layout: Layout, policy: str | None
) -> None:
    layout.create(owner)
    if layout is LAYOUTS["existing_table"]:
        execute(
            owner,
            "ALTER TABLE public.cases ENABLE ROW LEVEL SECURITY;"
            "GRANT USAGE, CREATE ON SCHEMA medmitra TO medmitra_cases;"
            "GRANT SELECT ON public.cases TO medmitra_cases;"
            "ALTER VIEW medmitra.cases OWNER TO medmitra_cases",
        )
    else:
        for name in ("as_granted", "one_doctor_permissive"):
            execute(owner, f"DROP POLICY {name} ON medmitra.cases")
    if policy:
        execute(owner, policy.format(layout.relation))
    result = run("check", url=make_dsn(empty_database, user="medmitra_cases"))
    assert result.exit_code == 1
    assert re.findall("^✗ (.*)", result.output, re.MULTILINE) == [
        f"row level security of {layout.relation} hides all cases:"
        " no policy admits the role that reads the table"
    ]
    if layout is LAYOUTS["own_table"]:
        execute(owner, read_sql("roles"))
        run_ok("check", url=make_dsn(empty_database, user="medmitra_cases"))


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE medmitra.cases DISABLE ROW LEVEL SECURITY",
        "DROP POLICY one_doctor ON medmitra.cases; CREATE POLICY everything ON medmitra.cases USING (true)",
        "DROP POLICY one_doctor ON medmitra.cases; DROP POLICY one_doctor_permissive ON medmitra.cases;"
        "ALTER POLICY as_granted ON medmitra.cases USING (true); TRUNCATE medmitra.cases",
        # A view that an operator wrote, without the condition of existing_table.sql.
        "ALTER TABLE medmitra.cases RENAME TO kept;"
        "CREATE VIEW medmitra.cases AS SELECT *, xmin FROM medmitra.kept;"
        "GRANT SELECT ON medmitra.cases TO medmitra_cases",
    ],
)
def test_check_fails_for_a_role_that_sees_all_cases(
    empty_database: str, owner: Connection, change: str
) -> None:
    LAYOUTS["own_table"].create(owner)
    run_ok("load-sample", url=empty_database)
    execute(owner, change)
    execute(owner, "GRANT medmitra_cases TO CURRENT_USER")
    result = run("check", url=make_dsn(empty_database, options="-c role=medmitra_cases"))
    assert result.exit_code == 1
    lines = result.output.splitlines()
    position = lines.index("✗ the role sees the cases of all doctors at once")
    assert "roles.sql" in lines[position + 1]
    assert "existing_table.sql" in lines[position + 1]


def test_check_fails_for_the_owner_of_the_table(empty_database: str, owner: Connection) -> None:
    LAYOUTS["own_table"].create(owner)
    result = run("check", url=empty_database)
    assert result.exit_code == 1
    assert "\n✗ the role sees the cases of all doctors at once\n" in result.output


@pytest.mark.parametrize(
    ("setting", "change", "seen"),
    [
        ("none", "", "✗ medmitra.cases is distributed, but SET LOCAL does not reach its shards"),
        (
            "local",
            "ALTER TABLE medmitra.cases DISABLE ROW LEVEL SECURITY",
            "✗ the role sees the cases of all doctors at once",
        ),
    ],
    ids=["empty lists", "other doctors' cases"],
)
def test_check_refuses_a_distributed_table_with_wrong_lists(
    empty_database: str, owner: Connection, setting: str, change: str, seen: str
) -> None:
    LAYOUTS["marked_as_distributed"].create(owner)
    execute(owner, f"GRANT medmitra_cases TO CURRENT_USER; {change}")
    options = f"-c role=medmitra_cases -c citus.propagate_set_commands={setting}"
    result = run("check", url=make_dsn(empty_database, options=options))
    assert result.exit_code == 1
    assert f"\n{seen}" in result.output


@pytest.mark.parametrize(
    ("source", "verdict", "seen", "hint"),
    [
        (
            "auto",
            "!",
            "ETags are made from the response body, so each 304 costs a query: the role",
            "roles.sql",
        ),
        ("rows", "✗", "the role cannot read the row versions (xmin)", "MEDMITRA_ETAG_SOURCE=body"),
    ],
)
def test_check_reports_the_source_of_etags(
    empty_database: str,
    owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    verdict: str,
    seen: str,
    hint: str,
) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(owner, "REVOKE SELECT (xmin) ON medmitra.cases FROM medmitra_cases")
    monkeypatch.setenv("MEDMITRA_ETAG_SOURCE", source)
    result = run("check", url=make_dsn(empty_database, options="-c role=medmitra_cases"))
    lines = result.output.splitlines()
    (position,) = (number for number, line in enumerate(lines) if line.startswith(f"{verdict} {seen}"))
    assert hint in lines[position + 1]
    assert result.exit_code == (verdict == "✗")


# The ways to fill the column id: in the table, and in the table below a view.
SEQUENCES = {
    "CACHE": "ALTER SEQUENCE {}.cases_id_seq CACHE 20",
    "descending": "ALTER SEQUENCE {}.cases_id_seq INCREMENT BY -1 MAXVALUE 1000 RESTART 1000",
    "CYCLE": "ALTER SEQUENCE {}.cases_id_seq CYCLE",
    "of no column": "ALTER TABLE {0}.cases ALTER id DROP IDENTITY; CREATE SEQUENCE {0}.numbers CACHE 20;"
    "ALTER TABLE {0}.cases ALTER id SET DEFAULT nextval('{0}.numbers')",
}


@pytest.mark.parametrize("layout", [LAYOUTS[name] for name in MAIN_LAYOUTS], ids=MAIN_LAYOUTS)
@pytest.mark.parametrize("change", SEQUENCES.values(), ids=SEQUENCES)
def test_check_warns_about_a_sequence_that_breaks_insertion_order(
    empty_database: str, owner: Connection, layout: Layout, change: str
) -> None:
    layout.create(owner)
    url = make_dsn(empty_database, user="medmitra_cases")
    schema = layout.relation.split(".")[0]
    execute(owner, "CREATE SEQUENCE public.others CACHE 20; CREATE TABLE public.other (id int DEFAULT 1)")
    assert "sequence" not in run_ok("check", url=url)
    execute(owner, change.format(schema))
    output = run_ok("check", url=url)
    assert f"! the sequence {schema}." in output
    repair = re.search("run (ALTER SEQUENCE .*)", output)
    assert repair is not None
    execute(owner, repair[1])
    assert "sequence" not in run_ok("check", url=url)


def test_check_requires_row_versions_only_if_the_etag_uses_them(
    empty_database: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAYOUTS["own_table"].create(owner)
    execute(owner, "REVOKE SELECT (xmin) ON medmitra.cases FROM medmitra_cases")
    execute(owner, "GRANT medmitra_cases TO CURRENT_USER")
    monkeypatch.setenv("MEDMITRA_ETAG_SOURCE", "body")
    assert "xmin" not in run_ok("check", url=make_dsn(empty_database, options="-c role=medmitra_cases"))


def test_check_warns_about_a_locale_without_accented_letters(server_dsn: str) -> None:
    with new_database(server_dsn, options="TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'") as url:
        run_ok("init-db", url=url)
        assert "! search treats É and é as different letters" in run("check", url=url).output


def test_check_finds_the_table_behind_two_views(empty_database: str, owner: Connection) -> None:
    LAYOUTS["existing_table"].create(owner)
    execute(owner, "ALTER VIEW medmitra.cases RENAME TO inner_cases")
    execute(owner, "CREATE VIEW medmitra.cases AS TABLE medmitra.inner_cases")
    execute(owner, read_sql("roles"))
    execute(owner, "GRANT DELETE ON public.cases TO medmitra_cases")
    output = run_ok("check", url=make_dsn(empty_database, options="-c role=medmitra_cases"))
    assert "! the role may write to medmitra.cases" in output


def test_two_init_db_commands_can_run_at_once(empty_database: str, owner: Connection) -> None:
    blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    execute(owner, read_sql("schema").replace("COMMIT;", ""))
    with closing(connect(empty_database)) as monitor, ThreadPoolExecutor(1) as pool:
        second = pool.submit(run_process, "init-db", DATABASE_URL=empty_database)
        while not execute(monitor, blocked):
            assert not second.done()
        execute(owner, "COMMIT")
        assert (second.result().returncode, second.result().stderr) == (0, "")


def test_init_db_does_not_wait_for_a_long_transaction(empty_database: str, owner: Connection) -> None:
    run_ok("init-db", url=empty_database)
    owner.autocommit = False
    execute(owner, "LOCK TABLE medmitra.cases IN ROW EXCLUSIVE MODE")
    result = run("init-db", url=empty_database)
    owner.rollback()
    owner.autocommit = True
    assert result.exit_code == 1
    assert "lock timeout" in result.output


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_load_sample_inserts_nothing(
    empty_database: str, owner: Connection, signum: signal.Signals
) -> None:
    run_ok("init-db", url=empty_database)
    command = [str(COMMAND), "load-sample", "--user", DOCTOR, "--cases", "1000000"]
    loading = "SELECT 1 FROM pg_stat_progress_copy WHERE tuples_processed > 0"
    with subprocess.Popen(
        command, env=environment(DATABASE_URL=empty_database), stderr=subprocess.PIPE, text=True
    ) as process:
        while not execute(owner, loading):
            assert process.poll() is None
        process.send_signal(signum)
        assert process.communicate()[1] == ""
    assert process.returncode == -signum  # a shell reports 130 or 143
    assert execute(owner, "SELECT count(*) FROM medmitra.cases") == [(0,)]


def test_ctrl_c_ends_a_command_that_waits_for_the_database(empty_database: str, owner: Connection) -> None:
    run_ok("init-db", url=empty_database)
    owner.autocommit = False
    execute(owner, "LOCK TABLE medmitra.cases")
    blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with (
        closing(connect(empty_database)) as monitor,
        subprocess.Popen([COMMAND, "load-sample"], env=environment(DATABASE_URL=empty_database)) as process,
    ):
        while not execute(monitor, blocked):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(TIMEOUT_SECONDS) == -signal.SIGINT
        finally:
            owner.rollback()


def test_load_sample_shows_progress_only_on_a_terminal(empty_database: str) -> None:
    run_ok("init-db", url=empty_database)
    arguments = ("load-sample", "--user", DOCTOR, "--cases", "20000")
    assert run_process(*arguments, DATABASE_URL=empty_database).stderr == ""
    status, output = run_on_terminal(*arguments, DATABASE_URL=empty_database)
    assert status == 0
    assert re.search(r"Loading cases +\[#+-+\] +10000/20000 +50%", output)
    assert re.search(r"Loading cases +\[#+\] +20000/20000 +100%", output)
    assert "\x1b[?25l" not in output  # a hidden cursor would stay hidden after Ctrl-C


def test_check_prints_colours_on_a_terminal(empty_database: str, owner: Connection) -> None:
    execute(owner, read_sql("schema"))
    execute(owner, "DROP INDEX medmitra.cases_user_id_id_idx")
    green, yellow, red = (
        f"\x1b[{number}m{mark}\x1b[0m " for number, mark in ((32, "✓"), (33, "!"), (31, "✗"))
    )
    status, output = run_on_terminal("check", DATABASE_URL=empty_database)
    assert status == 1
    assert all(colour in output for colour in (green, yellow, red))
    assert "\x1b" not in run_on_terminal("check", DATABASE_URL=empty_database, NO_COLOR="1")[1]


def test_serve_accepts_the_printed_token(empty_database: str, owner: Connection) -> None:
    LAYOUTS["own_table"].create(owner)
    variables = {"MEDMITRA_JWT_SECRET": SECRET, "MEDMITRA_JWT_ISSUER": "https://issuer.example"}
    printed = run_process("token", "--user", DOCTOR.upper(), "--minutes", "5", **variables)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", printed.stdout)
    header = {"Authorization": f"Bearer {printed.stdout.strip()}"}
    with client_on(empty_database, **variables) as client:
        response = client.get(f"/cases/all_cases?user_id={DOCTOR}", headers=header)
    assert response.data == b'{"cases":[]}'


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({}, "MEDMITRA_JWT_SECRET is not set"),
        (
            {"MEDMITRA_JWKS_URL": "https://keys.example/keys"},
            "MEDMITRA_JWT_SECRET is not set: only the issuer has the private keys for MEDMITRA_JWKS_URL",
        ),
        ({"MEDMITRA_JWT_SECRET": "short"}, "MEDMITRA_JWT_SECRET must be at least 32 bytes long"),
    ],
)
def test_token_requires_the_secret(variables: dict[str, str], error: str) -> None:
    result = run_process("token", "--user", DOCTOR, **variables)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"Error: {error}\n")


@pytest.mark.parametrize("arguments", [[], ["--user", "x"], ["--user", DOCTOR, "--minutes", "0"]])
def test_token_rejects_missing_or_invalid_options(arguments: list[str]) -> None:
    result = run_process("token", *arguments, MEDMITRA_JWT_SECRET=SECRET)
    assert result.returncode == 2
    assert "Error: " in result.stderr
