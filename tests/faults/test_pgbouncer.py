"""The whole contract, with one connection to Postgres that PgBouncer lends to whoever needs it."""

import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest
from flask.testing import FlaskClient
from psycopg2.extensions import make_dsn

from medmitra_cases.testing.postgres import open_folder
from tests.faults.pgbouncer import pgbouncer
from tests.faults.service import serving
from tests.responses.test_long_lists import *  # noqa: F403
from tests.responses.test_long_lists import TERMINATE, _alone, _short_is_long  # noqa: F401
from tests.schemas.test_user_id import *  # noqa: F403
from tests.support.factories import DOCTOR, CasesDatabase, execute
from tests.test_contract import *  # noqa: F403
from tests.test_contract import test_times_are_utc_whatever_the_sessions_zone

pytestmark = pytest.mark.faults

del test_times_are_utc_whatever_the_sessions_zone  # sets the zone in a way that PgBouncer refuses

OTHER = DOCTOR[:-1] + "1"


@pytest.fixture(scope="module")
def port(server_dsn: str) -> Iterator[int]:
    """PgBouncer's."""
    with open_folder() as folder, pgbouncer(folder, server_dsn) as port:
        yield port


@pytest.fixture
def database(database: CasesDatabase, port: int) -> CasesDatabase:
    """The database, into which the service gets through PgBouncer; its connection is a new one."""
    execute(database.owner, TERMINATE)
    return dataclasses.replace(
        database, service_dsn=make_dsn(database.service_dsn, host="127.0.0.1", port=port)
    )


def of_the_session(dsn: str) -> dict[str, str | None]:
    """All settings that a client finds, and the process that it finds them in."""
    with closing(psycopg2.connect(dsn, application_name="medmitra-cases")) as client:
        client.autocommit = True
        return dict(
            execute(
                client,
                "SELECT name, setting FROM pg_settings"
                " UNION SELECT 'user_id', nullif(current_setting('medmitra.user_id', true), '')"
                " UNION SELECT 'pid', pg_backend_pid()::text",
            )
        )


def test_no_setting_leaks_to_other_clients(database: CasesDatabase) -> None:
    database.add_many([DOCTOR] * 9 + [OTHER], 3_000)
    before = of_the_session(database.service_dsn)
    with serving(database.service_dsn) as server, ThreadPoolExecutor(8) as pool:

        def ask(doctor: str) -> tuple[str, int, set[str]]:
            response, body = server.get(f"/cases/all_cases?user_id={doctor}")
            assert response.status == 200
            cases = json.loads(body)["cases"]
            return doctor, len(cases), {case["user_id"] for case in cases}

        answers = list(pool.map(ask, [DOCTOR, OTHER] * 20))
    assert answers == [(DOCTOR, 2_700, {DOCTOR}), (OTHER, 300, {OTHER})] * 20
    assert before["user_id"] is None
    assert of_the_session(database.service_dsn) == before


def test_tags_and_pages(client: FlaskClient, database: CasesDatabase) -> None:
    database.add_many([DOCTOR, OTHER], 60)
    asked = f"/cases/all_cases?user_id={DOCTOR}"
    for url in (asked, f"{asked}&limit=7&page=2", f"{asked}&min_age=10"):
        answer = client.get(url)
        assert answer.get_json()["cases"]
        known = {"If-None-Match": answer.headers["ETag"]}
        assert client.get(url, headers=known).status_code == 304
        execute(database.owner, f"UPDATE {database.layout.relation} SET status = 'failed'")
        assert client.get(url, headers=known).status_code == 200
