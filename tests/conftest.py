"""A real Postgres for the whole run, with the service's two table layouts, emptied before every test."""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases import create_app
from medmitra_cases.app import DATABASE
from medmitra_cases.embedded import embedded_postgres
from tests.chromium import chromium
from tests.factories import LAYOUTS, CasesDatabase, execute, settings

# What services in this process audit would else come in between pytest's lines.
logging.getLogger("medmitra_cases.audit").addHandler(logging.NullHandler())


# Whatever the server's own is: letters beyond A to Z, in the order of their code points.
LOCALE = "ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C.UTF-8'"


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A superuser's connection string to a server that is ours to fill: an embedded one, or the one named."""
    with ExitStack() as stack:
        dsn = os.environ.get("MEDMITRA_TEST_DATABASE_URL")
        if not dsn:
            dsn = stack.enter_context(embedded_postgres(stack.enter_context(_open_folder())))
            _forgo_durability(dsn)
        yield dsn


def _forgo_durability(server_dsn: str) -> None:
    """Let the server write no file for the sake of a power failure: it ends with the run."""
    with closing(psycopg2.connect(server_dsn)) as server:
        server.autocommit = True
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            execute(server, f"ALTER SYSTEM SET {setting} = off")
        execute(server, "SELECT pg_reload_conf()")


def _new_database(server_dsn: str, name: str) -> Iterator[str]:
    with closing(psycopg2.connect(server_dsn)) as server:
        server.autocommit = True
        execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        execute(server, f"CREATE DATABASE {name} TEMPLATE template0 {LOCALE}")
        yield make_dsn(server_dsn, dbname=name)
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="medmitra-test-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a Postgres of the test's own, which as root runs as another user who must get through."""
    with _open_folder() as path:
        yield path


@pytest.fixture
def empty_database(server_dsn: str) -> Iterator[str]:
    """The owner's connection string of a database with nothing in it."""
    yield from _new_database(server_dsn, "medmitra_test_empty")


@pytest.fixture(scope="session", params=list(LAYOUTS))
def layout_database(server_dsn: str, request: pytest.FixtureRequest) -> Iterator[CasesDatabase]:
    """One database per table layout, made by the files an operator runs."""
    layout = LAYOUTS[request.param]
    for owner_dsn in _new_database(server_dsn, f"medmitra_test_{request.param}"):
        with closing(psycopg2.connect(owner_dsn)) as owner:
            owner.autocommit = True
            layout.create(owner)
            # A session left in its transaction shows as an error, not as a test that hangs.
            execute(owner, "SET lock_timeout = '20s'")
            # A server that asks its superuser for a password asks the service's role, too.
            password = parse_dsn(owner_dsn).get("password")
            if password:
                execute(owner, "ALTER ROLE medmitra_cases PASSWORD %s", [password])
            yield CasesDatabase(layout, owner, owner_dsn, make_dsn(owner_dsn, user="medmitra_cases"))


@pytest.fixture
def database(layout_database: CasesDatabase) -> CasesDatabase:
    """The database of the layout, holding only decoys: cases of other doctors."""
    layout_database.clear()
    layout_database.add_decoys()
    return layout_database


@pytest.fixture
def app(database: CasesDatabase) -> Iterator[Flask]:
    """The service on that database, logged in as its own role."""
    app = create_app(settings(database.service_dsn))
    yield app
    app.extensions[DATABASE].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the service."""
    return app.test_client()


@pytest.fixture(scope="session")
def client_without_database() -> FlaskClient:
    """A service whose database does not exist: whatever asks it gets a 500."""
    app = create_app(settings("postgresql://127.0.0.1:1/nowhere", MEDMITRA_DATABASE_WAIT_SECONDS="0"))
    return app.test_client()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture(params=["tcp", "unix"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that listens, as systemd would make it."""
    if request.param == "tcp":
        made = socket.create_server(("127.0.0.1", 0))
    else:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(tmp_path / "cases.sock"))
        made.listen()
    with made:
        yield made
