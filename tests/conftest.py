"""A real Postgres for the whole run, with the service's two table layouts, emptied before every test."""

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser

from medmitra_cases import create_app
from medmitra_cases.database import Database
from medmitra_cases.server.signals import END_SIGNALS
from medmitra_cases.testing import Harness
from medmitra_cases.testing.postgres import make_roles, new_database, open_folder
from tests.support.chromium import chromium
from tests.support.factories import LAYOUTS, CasesDatabase, execute, settings

# What services in this process audit would else come in between pytest's lines.
logging.getLogger("medmitra_cases.audit").addHandler(logging.NullHandler())


# Whatever the server's own is: letters beyond A to Z, in the order of their code points.
LOCALE = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C.UTF-8'"


@pytest.fixture(scope="session")
def server_dsn(medmitra_harness: Harness) -> str:
    """A superuser's connection string to a server that is ours to fill: that of the harness."""
    return medmitra_harness.database_url


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a Postgres of the test's own, which as root runs as another user who must get through."""
    with open_folder() as path:
        yield path


@pytest.fixture
def empty_database(server_dsn: str) -> Iterator[str]:
    """The owner's connection string of a database with nothing in it."""
    with new_database(server_dsn, options=LOCALE) as owner_dsn:
        yield owner_dsn


@pytest.fixture(scope="session", params=list(LAYOUTS))
def layout_database(server_dsn: str, request: pytest.FixtureRequest) -> Iterator[CasesDatabase]:
    """One database per table layout, made by the files an operator runs."""
    layout = LAYOUTS[request.param]
    with (
        new_database(server_dsn, options=LOCALE) as owner_dsn,
        closing(psycopg2.connect(owner_dsn)) as owner,
    ):
        owner.autocommit = True
        layout.create(owner)
        # A session left in its transaction shows as an error, not as a test that hangs.
        execute(owner, "SET lock_timeout = '20s'")
        yield CasesDatabase(layout, owner, owner_dsn, make_roles(server_dsn, owner, owner_dsn))


@pytest.fixture
def database(layout_database: CasesDatabase) -> CasesDatabase:
    """The database of the layout, holding only decoys: cases of other doctors."""
    layout_database.clear()
    layout_database.add_decoys()
    return layout_database


@pytest.fixture
def service_database(database: CasesDatabase) -> Iterator[Database]:
    """The service's connections to that database, logged in as its own role."""
    with closing(Database(database.service_dsn, wait_seconds=3)) as connections:
        yield connections


@pytest.fixture
def app(database: CasesDatabase, service_database: Database) -> Flask:
    """The service on that database."""
    return create_app(settings(database.service_dsn), database=service_database)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the service."""
    return app.test_client()


@pytest.fixture(scope="session")
def client_without_database() -> FlaskClient:
    """A service whose database does not exist: whatever asks it gets a 500."""
    app = create_app(settings("postgresql://127.0.0.1:1/nowhere", MEDMITRA_DATABASE_WAIT_SECONDS="0"))
    return app.test_client()


@pytest.fixture
def original_handlers() -> Iterator[None]:
    """The handlers of the signals are afterwards what they were before."""
    before = {number: signal.getsignal(number) for number in END_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
