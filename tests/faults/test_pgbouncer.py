"""The whole contract holds behind PgBouncer, with one connection to Postgres for all requests."""

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
from tests.responses.test_long_lists import _stream_short_lists, _wait_for_old_sessions  # noqa: F401
from tests.schemas.test_user_id import *  # noqa: F403
from tests.support.factories import DOCTOR, CasesDatabase, execute
from tests.test_contract import *  # noqa: F403
from tests.test_contract import test_times_are_utc_in_any_time_zone_of_the_session

pytestmark = pytest.mark.faults

del test_times_are_utc_in_any_time_zone_of_the_session  # PgBouncer refuses the option that sets the zone

OTHER = DOCTOR[:-1] + "1"


@pytest.fixture(scope="module")
def port(server_dsn: str) -> Iterator[int]:
    """Yield PgBouncer's port."""
    with open_folder() as folder, pgbouncer(folder, server_dsn) as port:
        yield port


@pytest.fixture
def database(database: CasesDatabase, port: int) -> CasesDatabase:
    """Return the database; the service connects to it through PgBouncer, with a new connection."""
    database.terminate_sessions()
    return dataclasses.replace(
        database, service_dsn=make_dsn(database.service_dsn, host="127.0.0.1", port=port)
    )


def session_settings(dsn: str) -> dict[str, str | None]:
    """Return all settings of a new client's session, the doctor's id and the backend's pid."""
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
    before = session_settings(database.service_dsn)
    with serving(database.service_dsn) as server, ThreadPoolExecutor(8) as pool:

        def get_cases(doctor: str) -> tuple[str, int, set[str]]:
            response, body = server.get(f"/cases/all_cases?user_id={doctor}")
            assert response.status == 200
            cases = json.loads(body)["cases"]
            return doctor, len(cases), {case["user_id"] for case in cases}

        results = list(pool.map(get_cases, [DOCTOR, OTHER] * 20))
    assert results == [(DOCTOR, 2_700, {DOCTOR}), (OTHER, 300, {OTHER})] * 20
    assert before["user_id"] is None
    assert session_settings(database.service_dsn) == before


def test_etags_and_pages_work(client: FlaskClient, database: CasesDatabase) -> None:
    database.add_many([DOCTOR, OTHER], 60)
    target = f"/cases/all_cases?user_id={DOCTOR}"
    for url in (target, f"{target}&limit=7&page=2", f"{target}&min_age=10"):
        response = client.get(url)
        assert response.get_json()["cases"]
        condition = {"If-None-Match": response.headers["ETag"]}
        assert client.get(url, headers=condition).status_code == 304
        execute(database.owner, f"UPDATE {database.layout.relation} SET status = 'failed'")
        assert client.get(url, headers=condition).status_code == 200
