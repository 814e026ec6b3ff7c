"""``deploy/pgbouncer.ini`` between the real service and a real Postgres."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from tests.deploy.parts import pgbouncer
from tests.support.factories import DOCTOR, CasesDatabase
from tests.support.processes import Running, serve

pytestmark = pytest.mark.deploy

OTHER = DOCTOR[:-1] + "7"
THIRD = DOCTOR[:-1] + "9"
ONE_CONNECTION = {"default_pool_size = 12": "default_pool_size = 1"}


def count_and_owners(server: Running, doctor: str) -> tuple[int, set[str]]:
    """Request a doctor's cases; return their number and the doctors that they belong to."""
    response, body = server.get(f"/cases/all_cases?user_id={doctor}")
    assert response.status == 200, body
    cases = json.loads(body)["cases"]
    return len(cases), {case["user_id"] for case in cases}


@pytest.mark.parametrize("replacements", [{}, ONE_CONNECTION], ids=["default pool", "one connection"])
def test_doctors_share_connections_and_get_only_their_own_cases(
    folder: Path, password_database: CasesDatabase, replacements: Mapping[str, str]
) -> None:
    password_database.clear()
    password_database.add_many([DOCTOR, OTHER], 6_000)  # 3,000 cases each, which is a long list
    password_database.add_many([THIRD], 50)
    expected = {DOCTOR: (3_000, {DOCTOR}), OTHER: (3_000, {OTHER}), THIRD: (50, {THIRD})}
    with pgbouncer(folder, password_database, replacements) as dsn, serve(dsn) as server:
        doctors = list(expected) * 20
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda doctor: count_and_owners(server, doctor), doctors))
    assert results == [expected[doctor] for doctor in doctors]


def test_a_request_gets_a_500_without_a_free_connection(folder: Path, database: CasesDatabase) -> None:
    with (
        pgbouncer(folder, database, ONE_CONNECTION) as dsn,
        serve(dsn) as server,
        psycopg2.connect(dsn) as blocker,
    ):
        blocker.cursor().execute("SELECT 1")  # the open transaction keeps the connection
        response, body = server.get(f"/cases/all_cases?user_id={DOCTOR}")
        assert response.status == 500
        assert "database unavailable" in json.loads(body)["detail"]
        blocker.rollback()
        assert count_and_owners(server, DOCTOR) == (0, set())
    blocker.close()


def test_pgbouncer_refuses_a_wrong_password_and_startup_options(pooled_dsn: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="SASL authentication failed"):
        psycopg2.connect(make_dsn(pooled_dsn, password="another"))
    with pytest.raises(psycopg2.OperationalError, match="unsupported startup parameter"):
        psycopg2.connect(make_dsn(pooled_dsn, options="-c statement_timeout=200"))
