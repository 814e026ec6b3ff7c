"""Fixtures: a real Postgres, the table layouts (emptied before every test), the service and clients."""

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
from psycopg2.extensions import connection as Connection

from medmitra_cases import create_app
from medmitra_cases.database import Database
from medmitra_cases.telemetry import END_SIGNALS
from medmitra_cases.testing import Harness
from medmitra_cases.testing.postgres import make_roles, new_database, open_folder
from tests.support.chromium import chromium
from tests.support.factories import LAYOUTS, MAIN_LAYOUTS, CasesDatabase, execute, settings

# A parent process may ignore these signals, as shells do for background jobs, and nohup. Processes that the
# tests start would inherit this. They do not inherit a handler that does nothing.
for _number in (*END_SIGNALS, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# Without this handler, services in this process print their audit log between pytest's lines.
logging.getLogger("medmitra_cases.audit").addHandler(logging.NullHandler())

# The same on every server: UTF-8, sorted by code point.
LOCALE = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C.UTF-8'"


@pytest.fixture(scope="session")
def server_dsn(medmitra_harness: Harness) -> str:
    """Return a superuser's connection string to the harness's server, where tests may create databases."""
    return medmitra_harness.database_url


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield an empty folder for a Postgres, which runs as another user if the tests run as root."""
    with open_folder() as path:
        yield path


@pytest.fixture
def empty_database(server_dsn: str) -> Iterator[str]:
    """Yield the owner's connection string to an empty database."""
    with new_database(server_dsn, options=LOCALE) as owner_dsn:
        yield owner_dsn


@pytest.fixture
def other_role(owner: Connection) -> Iterator[str]:
    """Yield a role like that of the product's backend. The test's file has the fixture ``owner``."""
    execute(owner, "CREATE ROLE medmitra_test_other")
    yield "medmitra_test_other"
    execute(
        owner, "RESET SESSION AUTHORIZATION; DROP OWNED BY medmitra_test_other; DROP ROLE medmitra_test_other"
    )


@pytest.fixture(scope="session", params=MAIN_LAYOUTS)
def layout_database(server_dsn: str, request: pytest.FixtureRequest) -> Iterator[CasesDatabase]:
    """Yield one database per table layout, created by the SQL files that an operator runs.

    Tests of the other layouts name them, as ``own_table`` is named in tests of one layout.
    """
    layout = LAYOUTS[request.param]
    with (
        new_database(server_dsn, options=LOCALE) as owner_dsn,
        closing(psycopg2.connect(owner_dsn)) as owner,
    ):
        owner.autocommit = True
        layout.create(owner)
        # If a session was left in a transaction, the next test fails instead of hanging.
        execute(owner, "SET lock_timeout = '20s'")
        yield CasesDatabase(layout, owner, owner_dsn, make_roles(server_dsn, owner, owner_dsn))


@pytest.fixture
def database(layout_database: CasesDatabase) -> CasesDatabase:
    """Return the layout's database with only decoys in it: cases of other doctors."""
    layout_database.clear()
    layout_database.add_decoys()
    return layout_database


@pytest.fixture
def service_database(database: CasesDatabase) -> Iterator[Database]:
    """Yield the service's connections to that database, logged in with the service's role."""
    with closing(Database(database.service_dsn, wait_seconds=3)) as connections:
        yield connections


@pytest.fixture
def app(database: CasesDatabase, service_database: Database) -> Flask:
    """Return the service on that database."""
    return create_app(settings(database.service_dsn), database=service_database)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Return a client of the service."""
    return app.test_client()


@pytest.fixture(scope="session")
def client_without_database() -> FlaskClient:
    """Return a client of a service that cannot reach its database: requests that need it get a 500."""
    app = create_app(settings("postgresql://127.0.0.1:1/nowhere", MEDMITRA_DATABASE_WAIT_SECONDS="0"))
    return app.test_client()


@pytest.fixture
def original_handlers() -> Iterator[None]:
    """Restore the signal handlers after the test."""
    before = {number: signal.getsignal(number) for number in END_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a headless Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture(params=["tcp", "unix"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """Yield a listening socket, as systemd would create it."""
    if request.param == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "cases.sock"))
        listener.listen()
    with listener:
        yield listener
