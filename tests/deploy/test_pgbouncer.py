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
POOL = "default_pool_size = 12"


def owners(server: Running, doctor: str) -> tuple[int, set[str]]:
    """How many cases the doctor is given, and whose they are."""
    response, body = server.get(f"/cases/all_cases?user_id={doctor}")
    assert response.status == 200, body
    given = json.loads(body)["cases"]
    return len(given), {case["user_id"] for case in given}


@pytest.mark.parametrize("changes", [{}, {POOL: "default_pool_size = 1"}], ids=["as it is", "one connection"])
def test_doctors_share_connections_and_get_their_own(
    folder: Path, clinic: CasesDatabase, changes: Mapping[str, str]
) -> None:
    clinic.clear()
    clinic.add_many([DOCTOR, OTHER], 6_000)  # 3,000 each are a long list
    clinic.add_many([THIRD], 50)
    wanted = {DOCTOR: (3_000, {DOCTOR}), OTHER: (3_000, {OTHER}), THIRD: (50, {THIRD})}
    with pgbouncer(folder, clinic, changes) as dsn, serve(dsn) as server:
        asked = list(wanted) * 20
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda doctor: owners(server, doctor), asked))
    assert answers == [wanted[doctor] for doctor in asked]


def test_who_waits_for_a_connection_in_vain_gets_a_500_soon(folder: Path, cases: CasesDatabase) -> None:
    with (
        pgbouncer(folder, cases, {POOL: "default_pool_size = 1"}) as dsn,
        serve(dsn) as server,
        psycopg2.connect(dsn) as hogging,
    ):
        hogging.cursor().execute("SELECT 1")  # its transaction keeps the connection
        response, body = server.get(f"/cases/all_cases?user_id={DOCTOR}")
        assert response.status == 500
        assert "database unavailable" in json.loads(body)["detail"]
        hogging.rollback()
        assert owners(server, DOCTOR) == (0, set())
    hogging.close()


def test_a_wrong_password_and_options_are_refused(pooled: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="SASL authentication failed"):
        psycopg2.connect(make_dsn(pooled, password="another"))
    with pytest.raises(psycopg2.OperationalError, match="unsupported startup parameter"):
        psycopg2.connect(make_dsn(pooled, options="-c statement_timeout=200"))
