"""The files of sql/ and docs/supabase.md on a Postgres whose roles and policies are those of Supabase."""

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases.database.sql_files import read_sql, sql_directory
from medmitra_cases.settings.rules import must_be_database_url
from tests.support.factories import DOCTOR, execute
from tests.support.key_server import KeyServer
from tests.support.paths import DOCS, ROOT
from tests.support.processes import Running, run, run_program, running
from tests.support.snippets import PATH, snippet
from tests.support.supabase import supabase_database, supabase_server
from tests.support.tokens import ABSENT, ASKED, EC_KEY, SECRET, bearer, issued, issued_by_key, jwk

PREPARE = snippet("docs/supabase.md", "Prepare the database", "sh")
INDEX = snippet("docs/supabase.md", "Prepare the database", "sql")
START = snippet("docs/supabase.md", "Start the service", "sh")
ROTATE = snippet("docs/supabase.md", "The day of rotation", "sh")
ISSUER = "https://YOUR-PROJECT.supabase.co/auth/v1"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with supabase_server() as admin_dsn:
        yield admin_dsn


@pytest.fixture
def project(server: str) -> Iterator[str]:
    """Yield the connection string of a project's owner."""
    with supabase_database(server) as owner_dsn:
        yield owner_dsn


@pytest.fixture
def owner(project: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(project)) as connection:
        connection.autocommit = True
        yield connection


def psql(dsn: str, *arguments: str | Path) -> tuple[int, str]:
    """Run psql; return its exit status and its messages."""
    ended = run_program(["psql", dsn, "-v", "ON_ERROR_STOP=1", *arguments], {"PATH": PATH})
    return ended.returncode, ended.stderr


def run_file(dsn: str, name: str) -> tuple[int, str]:
    return psql(dsn, "-f", sql_directory() / f"{name}.sql")


def names_of(connection: Connection, doctor: str) -> list[str]:
    """Return the names of the patients that the role of the service sees for a doctor."""
    execute(connection, "SELECT set_config('medmitra.user_id', %s, false)", [doctor])
    return [name for (name,) in execute(connection, "SELECT patient_name FROM medmitra.cases")]


@pytest.mark.parametrize("files", [("existing_table", "existing_table_index", "roles"), ("schema", "roles")])
def test_an_owner_that_is_no_superuser_prepares_the_database(project: str, files: tuple[str, ...]) -> None:
    for name in (*files, *files):  # a second run changes nothing
        assert run_file(project, name)[0] == 0
    checked = run("check", DATABASE_URL=make_dsn(project, user="medmitra_cases"))
    assert checked.returncode == 0, checked.stdout
    assert "✗" not in checked.stdout


def test_the_policies_of_the_product_hide_nothing_from_the_service(project: str) -> None:
    for name in ("existing_table", "existing_table_index", "roles"):
        assert run_file(project, name)[0] == 0
    with closing(psycopg2.connect(make_dsn(project, user="medmitra_cases"))) as service:
        assert names_of(service, DOCTOR) == ["Ada"]


@pytest.mark.parametrize("files", [("existing_table", "roles"), ("schema", "roles")])
def test_the_roles_of_the_data_api_cannot_read_what_the_service_reads(
    owner: Connection, files: tuple[str, ...]
) -> None:
    for name in files:
        execute(owner, read_sql(name))
    for role in ("anon", "authenticated", "service_role"):
        execute(owner, f"SET ROLE {role}")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            execute(owner, "TABLE medmitra.cases")


def test_the_index_cannot_be_built_inside_a_transaction(project: str, owner: Connection) -> None:
    status, messages = psql(project, "-1", "-f", sql_directory() / "existing_table_index.sql")
    assert status != 0
    assert "CREATE INDEX CONCURRENTLY cannot run inside a transaction block" in messages
    assert execute(owner, "SELECT to_regclass('public.cases_doctor_id_id_idx')") == [(None,)]


@pytest.mark.parametrize("files", [("existing_table", "existing_table_index"), ("schema",)])
def test_an_owner_that_may_not_create_roles_needs_another_role_for_part_one(
    server: str, files: tuple[str, ...]
) -> None:
    with supabase_database(server, owner="plain_owner") as owner_dsn:
        for name in files:
            assert run_file(owner_dsn, name)[0] == 0
        status, messages = run_file(owner_dsn, "roles")
        assert status != 0
        assert "plain_owner may not create roles: let a role that may do so run roles.sql first" in messages
        status, messages = run_file(make_dsn(owner_dsn, user="postgres"), "roles")
        assert status != 0
        assert "permission denied for schema medmitra" in messages
        for _ in range(2):
            status, messages = run_file(owner_dsn, "roles")
            assert status == 0
            assert "plain_owner may not change the role medmitra_cases" in messages
        checked = run("check", DATABASE_URL=make_dsn(owner_dsn, user="medmitra_cases"))
        assert checked.returncode == 0, checked.stdout
        assert "!" not in checked.stdout


def test_row_security_that_is_on_before_hides_nothing_from_the_service(
    project: str, owner: Connection
) -> None:
    for name in ("schema", "roles"):
        execute(owner, read_sql(name))
        execute(owner, "ALTER TABLE medmitra.cases ENABLE ROW LEVEL SECURITY")
    assert run("check", DATABASE_URL=make_dsn(project, user="medmitra_cases")).returncode == 0
    execute(owner, "GRANT USAGE ON SCHEMA medmitra TO authenticated")
    execute(owner, "GRANT SELECT ON medmitra.cases TO authenticated")
    execute(
        owner,
        "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender)"
        " VALUES (%s, 'Ada', 36, 'female')",
        [DOCTOR],
    )
    execute(owner, "SET ROLE authenticated")
    assert names_of(owner, DOCTOR) == []
    with closing(psycopg2.connect(make_dsn(project, user="medmitra_cases"))) as service:
        assert names_of(service, DOCTOR) == ["Ada"]


def adapted(script: str, project: str, keys_url: str = "") -> str:
    """Replace the addresses of the page by those of the test."""
    script = re.sub(
        r'="postgresql://(\w+):[^"]+"', lambda url: f"={shlex.quote(make_dsn(project, user=url[1]))}", script
    )
    script = script.replace(f"{ISSUER}/.well-known/jwks.json", keys_url)
    return script.replace("medmitra-cases serve", "exec medmitra-cases serve")


def prepare(script: str, project: str) -> None:
    # psql requests the password twice. It reads stdin, because a new session has no terminal.
    options = {"input": "made up\n" * 2, "start_new_session": True, "cwd": ROOT}
    prepared = run_program(["bash", "-euc", adapted(script, project)], {"PATH": PATH}, **options)
    assert prepared.returncode == 0, prepared.stderr


def patients(server: Running, token: str) -> list[str]:
    """Return the names of the patients in the response to a request with this token."""
    response, body = server.get(ASKED, **bearer(token))
    assert response.status == 200, body
    return [case["patient_name"] for case in json.loads(body)["cases"]]


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    with closing(KeyServer()) as server:
        server.publish(jwk(EC_KEY, "key"))
        yield server


def test_the_commands_of_the_page_prepare_a_project_and_serve_it(project: str, keys: KeyServer) -> None:
    prepare(PREPARE, project)
    script = adapted(START, project, keys.url)
    with running("bash", "-euc", script, PATH=PATH, MEDMITRA_LISTEN="127.0.0.1:0") as server:
        assert "Ready to serve: all " in server.printed
        assert patients(server, issued_by_key(EC_KEY, "key", iss=ISSUER)) == ["Ada"]
        assert server.get(ASKED, **bearer(issued_by_key(EC_KEY, "key")))[0].status == 401  # another issuer


def test_on_the_day_of_rotation_tokens_of_both_kinds_are_valid(project: str, keys: KeyServer) -> None:
    prepare(PREPARE, project)
    variables = {
        "DATABASE_URL": make_dsn(project, user="medmitra_cases"),
        "LEGACY_JWT_SECRET": SECRET,
        "MEDMITRA_LISTEN": "127.0.0.1:0",
        "PATH": PATH,
    }
    with running("bash", "-euc", adapted(ROTATE, project, keys.url), **variables) as server:
        assert "the signing keys of MEDMITRA_JWKS_URL: 1 for ES256" in server.printed
        assert "to each doctor by token (HS256, keys of " in server.printed
        assert patients(server, issued(iss=ISSUER)) == ["Ada"]
        assert patients(server, issued_by_key(EC_KEY, "key", iss=ISSUER)) == ["Ada"]
        # The claims of the API's own keys.
        for role in ("anon", "service_role"):
            key = issued(iss="supabase", ref="YOUR-PROJECT", role=role, sub=ABSENT, aud=ABSENT)
            assert server.get(ASKED, **bearer(key))[0].status == 401


def test_the_index_of_the_page_can_be_built_inside_a_transaction(project: str) -> None:
    assert psql(project, "-1", "-c", INDEX)[0] == 0
    assert run_file(project, "existing_table_index")[0] == 0
    prepare(PREPARE, project)
    assert run("check", DATABASE_URL=make_dsn(project, user="medmitra_cases")).returncode == 0


def test_every_address_of_the_page_is_encrypted_verified_and_patient() -> None:
    addresses = re.findall(r'postgresql://[^"\s]+', (DOCS / "supabase.md").read_text())
    assert len(addresses) == 3
    for address in addresses:
        must_be_database_url(address)
        parts = parse_dsn(address)
        assert (parts["sslmode"], parts["connect_timeout"]) == ("verify-full", "10")
        assert parts["sslrootcert"].endswith("prod-ca-2021.crt")
    shared = parse_dsn(addresses[1])
    assert (shared["user"], shared["port"]) == ("medmitra_cases.YOUR-PROJECT", "6543")
