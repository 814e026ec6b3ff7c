"""Fixtures: a Postgres that requires a password, PgBouncer in front of it, the container image."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.testing.postgres import open_folder
from tests.deploy.images import build_image
from tests.deploy.nginx import unix_listener
from tests.deploy.parts import PASSWORD, pgbouncer, require_root
from tests.support.factories import LAYOUTS, CasesDatabase, execute
from tests.support.processes import COMMAND, Running, running_on, wait_until
from tests.support.programs import tool


@pytest.fixture(scope="session")
def password_database() -> Iterator[CasesDatabase]:
    """Yield an empty database; the service's role must log in with its password."""
    with open_folder() as folder, embedded_postgres(folder) as dsn, closing(psycopg2.connect(dsn)) as owner:
        owner.autocommit = True
        layout = LAYOUTS["own_table"]
        layout.create(owner)
        execute(owner, "ALTER ROLE medmitra_cases PASSWORD %s", [PASSWORD])
        ((hba_file,),) = execute(owner, "SHOW hba_file")
        rules = Path(hba_file).read_text()
        Path(hba_file).write_text("local all medmitra_cases scram-sha-256\n" + rules)
        execute(owner, "SELECT pg_reload_conf()")
        wait_until(lambda: _refuses_login(make_dsn(dsn, user="medmitra_cases")))
        service_dsn = make_dsn(dsn, user="medmitra_cases", password=PASSWORD)
        yield CasesDatabase(layout, owner, dsn, service_dsn)


def _refuses_login(dsn: str) -> bool:
    try:
        psycopg2.connect(dsn).close()
    except psycopg2.OperationalError:
        return True
    return False


@pytest.fixture
def database(password_database: CasesDatabase) -> CasesDatabase:
    """Return that database with only cases of other doctors in it."""
    password_database.clear()
    password_database.add_decoys()
    return password_database


@pytest.fixture(scope="module")
def service(password_database: CasesDatabase) -> Iterator[Running]:
    """Yield the service on a Unix socket."""
    with (
        open_folder() as folder,
        unix_listener(folder / "http.sock") as listener,
        running_on(listener, COMMAND, "serve", DATABASE_URL=password_database.service_dsn) as service,
    ):
        yield service


@pytest.fixture(scope="session")
def pooled_dsn(password_database: CasesDatabase) -> Iterator[str]:
    """Yield the service's connection string to that database through PgBouncer."""
    with open_folder() as folder, pgbouncer(folder, password_database) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def image() -> str:
    """Build the image of ``deploy/Containerfile``, and return its name."""
    require_root()
    for name in ("buildah", "debootstrap", "unshare"):
        tool(name)
    os.environ["BUILDAH_ISOLATION"] = "chroot"  # this isolation needs no container runtime
    with open_folder() as folder:
        return build_image(folder)
