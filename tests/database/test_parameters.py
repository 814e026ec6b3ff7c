"""The parameters of libpq: what an operator configures, wherever, has precedence over our defaults."""

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases.app import create_database
from medmitra_cases.database.connection import connect
from medmitra_cases.database.database import Database
from medmitra_cases.database.watchdog import Watchdog
from medmitra_cases.errors import SettingsError
from tests.support.factories import CasesDatabase, execute, settings
from tests.support.processes import run
from tests.support.proxy import Proxy

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)


def parameters(url: str) -> dict[str, str]:
    """Return what libpq says it uses, and the name of the session."""
    with closing(Database(url, wait_seconds=3)) as reader:
        return reader.read(
            time.monotonic(),
            lambda connection: {
                **connection.info.dsn_parameters,
                "session": execute(connection, "SHOW application_name")[0][0],
            },
        )


@pytest.fixture
def service_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: CasesDatabase) -> Path:
    """Return a service file with the database as service ``clinic``."""
    path = tmp_path / "services"
    lines = [f"{name}={value}" for name, value in parse_dsn(database.service_dsn).items()]
    path.write_text("\n".join(["# comment", "[other]", "port=1", "[clinic]", *lines, ""]))
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    return path


def test_the_defaults(database: CasesDatabase) -> None:
    found = parameters(database.service_dsn)
    assert (found["connect_timeout"], found["tcp_user_timeout"]) == ("2", "3000")
    assert [found[f"keepalives_{name}"] for name in ("idle", "interval", "count")] == ["5", "2", "2"]
    assert found["session"] == "medmitra-cases"


def test_the_environment_has_precedence(database: CasesDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "17")
    monkeypatch.setenv("PGAPPNAME", "clinic")
    found = parameters(database.service_dsn)
    assert (found["connect_timeout"], found["session"]) == ("17", "clinic")
    assert found["tcp_user_timeout"] == "3000"


@pytest.mark.parametrize("how", ["in the URL", "PGSERVICE"])
def test_a_service_file_has_precedence(service_file: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    with service_file.open("a") as file:
        file.write("connect_timeout=18\nkeepalives_idle=77\napplication_name=of the file\n")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "17")
    if how == "PGSERVICE":
        monkeypatch.setenv("PGSERVICE", "clinic")
    found = parameters("service=clinic" if how == "in the URL" else "")
    assert (found["connect_timeout"], found["keepalives_idle"]) == ("18", "77")
    assert (found["keepalives_count"], found["session"]) == ("2", "of the file")


def test_the_url_has_precedence_over_both(service_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with service_file.open("a") as file:
        file.write("connect_timeout=18\ntcp_user_timeout=1\n")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "17")
    found = parameters("service=clinic connect_timeout=19 tcp_user_timeout=4000")
    assert (found["connect_timeout"], found["tcp_user_timeout"]) == ("19", "4000")


def test_a_pooler_with_a_slow_login_can_be_reached(
    database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "20")
    with closing(Proxy(database.service_dsn)) as proxy:
        proxy.forwards.clear()
        threading.Timer(2.6, proxy.forwards.set).start()
        with closing(Database(proxy.dsn, wait_seconds=20)) as reader:
            assert reader.read(time.monotonic(), lambda connection: execute(connection, "SELECT 1")) == [(1,)]
        assert proxy.accepted == 1


def test_a_pooler_that_connects_with_the_first_statement_can_be_reached(
    database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "20")
    with closing(Proxy(database.service_dsn)) as proxy, closing(connect(proxy.dsn)) as connection:
        proxy.forwards.clear()
        threading.Timer(2.6, proxy.forwards.set).start()
        assert execute(Watchdog().watch(connection), "SELECT 1") == [(1,)]


@pytest.mark.parametrize("where", ["URL", "environment", "service file", "several hosts"])
def test_a_session_that_can_write_is_refused_at_start(
    service_file: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    url = "service=clinic"
    if where == "URL":
        url = "host=127.0.0.1 target_session_attrs=read-write"
    elif where == "service file":
        with service_file.open("a") as file:
            file.write("target_session_attrs=read-write\n")
    else:
        monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    if where == "several hosts":
        url = "host=a.example,b.example port=1,2"
    ended = run("serve", "--listen", "127.0.0.1:0", DATABASE_URL=url)
    assert ended.returncode != 0
    assert "use primary or prefer-standby" in ended.stderr
    assert ended.stderr.count("\n") == 1
    with pytest.raises(SettingsError, match="use primary or prefer-standby"):
        create_database(settings(url))


@pytest.mark.parametrize("value", ["any", "primary", "prefer-standby", "read-only"])
def test_other_sessions_are_not_refused(
    database: CasesDatabase, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", value)
    with closing(create_database(settings(database.service_dsn))) as reader:
        assert reader.read(time.monotonic(), lambda connection: execute(connection, "SELECT 1")) == [(1,)]


def test_the_url_overrides_the_kind_of_session_of_the_environment(
    database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    url = make_dsn(database.service_dsn, target_session_attrs="primary")
    with closing(create_database(settings(url))) as reader:
        assert reader.read(time.monotonic(), lambda connection: execute(connection, "SELECT 1")) == [(1,)]
