"""Collations under which different texts are equal, on a Postgres with ICU, which the embedded one lacks."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from psycopg2.extensions import make_dsn

from medmitra_cases.cli.main import main
from medmitra_cases.testing.postgres import new_database, open_folder
from tests.faults.postgres import Postgres
from tests.support.factories import DOCTOR, LAYOUTS, CasesDatabase, case, client_on, execute
from tests.support.programs import AS_NOBODY

pytestmark = pytest.mark.faults

COLLATION = """
    CREATE COLLATION public.loose (provider = icu, locale = 'und-u-ks-level1', deterministic = false)
"""
NAMES = ["Zoë", "ZOE", "zoe", "Ödön", "Asha", "élan", "Élan"]


@pytest.fixture(scope="module")
def server_dsn() -> Iterator[str]:
    """Yield a superuser's connection string to a Postgres of Debian."""
    programs = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not programs:
        pytest.skip("no Postgres of Debian is installed (package postgresql)")
    with open_folder() as folder:
        data, sockets = folder / "data", folder / "socket"
        for path in (data, sockets):
            path.mkdir(mode=0o700)
            if AS_NOBODY:
                shutil.chown(path, "nobody", "nogroup")
        initdb = (
            *AS_NOBODY,
            programs[-1] / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
        )
        locale = ("--locale=C.UTF-8", "--encoding=UTF8")
        subprocess.run([*initdb, *locale], check=True, cwd="/", stdout=subprocess.DEVNULL)
        server = Postgres(programs[-1], data)
        server.start()
        yield server.dsn
        server.stop()


@pytest.fixture(params=LAYOUTS)
def database(server_dsn: str, request: pytest.FixtureRequest) -> Iterator[CasesDatabase]:
    """Yield a database in whose columns of text neither case nor accents make a difference."""
    layout = LAYOUTS[request.param]
    loose = layout.setup_sql.replace(" text", " text COLLATE public.loose")
    with new_database(server_dsn) as dsn, closing(psycopg2.connect(dsn)) as owner:
        owner.autocommit = True
        if not execute(owner, "SELECT 1 FROM pg_collation WHERE collprovider = 'i'"):
            pytest.skip("this Postgres has no ICU")
        execute(owner, COLLATION)
        replace(layout, setup_sql=loose).create(owner)
        if not loose:
            for column in ("patient_name", "patient_gender", "case_summary", "status"):
                execute(owner, f"ALTER TABLE medmitra.cases ALTER {column} TYPE text COLLATE public.loose")
        yield CasesDatabase(layout, owner, dsn, make_dsn(dsn, user="medmitra_cases"))


def found(client: FlaskClient, **sent: str) -> list[Any]:
    response = client.get("/cases/all_cases", query_string={"user_id": DOCTOR, **sent})
    assert response.status_code == 200, response.get_json()
    return [item["patient_name"] for item in response.get_json()["cases"]]


def test_filters_compare_characters(database: CasesDatabase) -> None:
    database.add(
        *(case(patient_name=name, status=name, patient_gender=name, case_summary="") for name in NAMES)
    )
    with client_on(database.service_dsn) as client:
        assert found(client) == NAMES
        for name in NAMES:
            assert found(client, status=name) == found(client, gender=name) == [name]
            assert found(client, status=name, limit="5", sort_order="desc") == [name]
        assert found(client, search="zoe") == ["ZOE", "zoe"]
        assert found(client, search="ZOË", limit="5") == ["Zoë"]
        assert found(client, search="ÉLAN") == ["élan", "Élan"]
        assert found(client, status="elan") == found(client, search="odon") == []
        # The order is that of the column's collation.
        assert found(client, sort_by="patient_name")[:3] == ["Asha", "élan", "Élan"]
        checked = CliRunner().invoke(main, ["check"], env={"DATABASE_URL": database.service_dsn})
    assert checked.exit_code == 0, checked.output
