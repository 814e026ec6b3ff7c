"""The service behind a pooler as Supabase has it: in transaction mode, with the project in the login name."""

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases.database import connect, read_sql
from medmitra_cases.testing.postgres import open_folder
from tests.faults.pgbouncer import pgbouncer
from tests.faults.service import TARGET, serving
from tests.support.factories import execute
from tests.support.processes import run
from tests.support.supabase import supabase_database, supabase_server

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def project() -> Iterator[str]:
    """Yield the connection string of the owner of a prepared project."""
    with supabase_server() as admin_dsn, supabase_database(admin_dsn) as owner_dsn:
        with closing(connect(owner_dsn)) as owner:
            for name in ("existing_table", "existing_table_index", "roles"):
                execute(owner, read_sql(name))
        yield owner_dsn


@pytest.mark.parametrize("login_name", ["medmitra_cases", "medmitra_cases.abcdefghijklmnopqrst"])
def test_the_service_reads_through_a_pooler_in_transaction_mode(project: str, login_name: str) -> None:
    server = parse_dsn(project)
    # The pooler logs in to Postgres as the role, whatever the client's login name is.
    more = (
        f"auth_type = any\n[databases]\n* = host={server['host']} port={server['port']} user=medmitra_cases"
    )
    with open_folder() as folder, pgbouncer(folder, project, more=more) as port:
        dsn = make_dsn(project, host="127.0.0.1", port=port, user=login_name)
        checked = run("check", DATABASE_URL=dsn)
        assert checked.returncode == 0, checked.stdout
        assert f"database {server['dbname']}, role medmitra_cases\n" in checked.stdout
        assert "!" not in checked.stdout
        with serving(dsn) as service:
            response, body = service.get(TARGET)
            assert response.status == 200
            assert [case["patient_name"] for case in json.loads(body)["cases"]] == ["Ada"]
            assert service.ask_admin("/readyz")[0] == 200
