"""What the parts of a deployment stand on: a Postgres that asks for a password, PgBouncer, an image."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.testing.postgres import open_folder
from tests.deploy import images
from tests.deploy.parts import PASSWORD, as_root, pgbouncer
from tests.support.factories import LAYOUTS, CasesDatabase, execute
from tests.support.processes import wait_until
from tests.support.programs import tool


@pytest.fixture(scope="session")
def clinic() -> Iterator[CasesDatabase]:
    """A database with no case in it, into which the service's role gets by its password only."""
    with open_folder() as folder, embedded_postgres(folder) as dsn, closing(psycopg2.connect(dsn)) as owner:
        owner.autocommit = True
        layout = LAYOUTS["own_table"]
        layout.create(owner)
        execute(owner, "ALTER ROLE medmitra_cases PASSWORD %s", [PASSWORD])
        ((path,),) = execute(owner, "SHOW hba_file")
        rules = Path(path)
        rules.write_text("local all medmitra_cases scram-sha-256\n" + rules.read_text())
        execute(owner, "SELECT pg_reload_conf()")
        wait_until(lambda: _is_refused(make_dsn(dsn, user="medmitra_cases")))
        service_dsn = make_dsn(dsn, user="medmitra_cases", password=PASSWORD)
        yield CasesDatabase(layout, owner, dsn, service_dsn)


def _is_refused(dsn: str) -> bool:
    try:
        psycopg2.connect(dsn).close()
    except psycopg2.OperationalError:
        return True
    return False


@pytest.fixture
def cases(clinic: CasesDatabase) -> CasesDatabase:
    """That database, holding only cases of other doctors."""
    clinic.clear()
    clinic.add_decoys()
    return clinic


@pytest.fixture(scope="session")
def pooled(clinic: CasesDatabase) -> Iterator[str]:
    """The connection string of the service to that database through PgBouncer."""
    with open_folder() as folder, pgbouncer(folder, clinic) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the image of ``deploy/Containerfile``, built."""
    as_root()
    for name in ("buildah", "debootstrap", "unshare"):
        tool(name)
    os.environ["BUILDAH_ISOLATION"] = "chroot"  # needs no container runtime
    with open_folder() as folder:
        return images.built(folder)
