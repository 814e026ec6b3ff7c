"""The audit: one line for each request for cases, who asked for whose, and nothing of a patient."""

import http.client
import ipaddress
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg2
import pytest
from flask.testing import FlaskClient
from psycopg2.extensions import make_dsn

from medmitra_cases.auth.tokens import mint_token
from medmitra_cases.dao import reader
from medmitra_cases.dao.fetch import fetch_cases
from medmitra_cases.settings.settings import Settings
from medmitra_cases.web import audit
from tests.support.factories import DOCTOR, CasesDatabase, case, execute, settings
from tests.support.processes import TIMEOUT_SECONDS, Running, serve

# The table's layout has no say in any of this.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

URL = "/cases/all_cases"
ASKED = f"{URL}?user_id={DOCTOR}"
OTHER = DOCTOR[:-1] + "7"
SECRET = "test-secret-of-thirty-two-bytes-or-more"
KEYS = [
    *("time", "request_id", "client", "subject", "user_id"),
    *("outcome", "status", "cases", "duration_ms"),
]
PATIENT = {"patient_name": "Zebediah Quux", "patient_age": 1_234_567_890, "case_summary": "acute xylophobia"}


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    """A service that needs tokens; a query that hangs is cancelled soon."""
    with serve(
        make_dsn(layout_database.service_dsn, options="-c statement_timeout=200"),
        MEDMITRA_JWT_SECRET=SECRET,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def configured() -> Settings:
    return settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)


@pytest.fixture
def token(configured: Settings) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token(configured, DOCTOR, minutes=1)}"}


def audited(server: Running, request_id: str) -> dict[str, Any]:
    """The one line about the request; asserts what all lines have in common."""
    # Written before the answer is complete, but through another pipe.
    server.wait_for(rf'"request_id":"{request_id}"')
    (line,) = (line for line in server.printed.splitlines() if f'"request_id":"{request_id}"' in line)
    found: dict[str, Any] = json.loads(line)
    assert list(found) == KEYS
    assert found["time"].endswith("Z")
    age = datetime.now(timezone.utc) - datetime.fromisoformat(found["time"][:-1] + "+00:00")
    assert timedelta(0) < age < timedelta(minutes=1)
    assert 0 < found["duration_ms"] < 60_000
    return found


def said(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[key] for key in ("outcome", "status", "subject", "user_id", "cases"))


def ask(server: Running, request_id: str, target: str = ASKED, method: str = "GET", **headers: str) -> int:
    """Ask for cases under that id; returns the status."""
    response, _ = server.get(target, method, **{"X-Request-ID": request_id, **headers})
    return response.status


def test_cases_given(server: Running, database: CasesDatabase, token: dict[str, str]) -> None:
    database.add(case(), case(), case())
    assert ask(server, "given", ASKED.replace(DOCTOR, DOCTOR.upper()), **token) == 200
    line = audited(server, "given")
    assert said(line) == ("ok", 200, DOCTOR, DOCTOR, 3)
    assert line["client"] == "127.0.0.1"


def test_head_gives_no_cases(server: Running, database: CasesDatabase, token: dict[str, str]) -> None:
    database.add(case())
    assert ask(server, "head", method="HEAD", **token) == 200
    assert said(audited(server, "head")) == ("ok", 200, DOCTOR, DOCTOR, 0)


def not_modified(server: Running, request_id: str, method: str, token: dict[str, str]) -> tuple[Any, ...]:
    """Ask for what one already has; returns what the audit says."""
    tag = server.get(ASKED, **token)[0].headers["ETag"]
    assert ask(server, request_id, method=method, **{"If-None-Match": tag}, **token) == 304
    return said(audited(server, request_id))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_cases_that_have_not_changed_are_not_given(
    server: Running, database: CasesDatabase, token: dict[str, str], method: str
) -> None:
    database.add(case(), case())
    line = not_modified(server, f"unchanged-{method}", method, token)
    assert line == ("not_modified", 304, DOCTOR, DOCTOR, 0)


@pytest.mark.parametrize(
    ("request_id", "query", "user_id"),
    [
        ("missing", "", None),
        ("word", "?user_id=Zebediah%20Quux", None),
        ("repeated", f"?user_id={DOCTOR}&user_id={OTHER}", None),
    ],
)
def test_a_request_at_fault(
    server: Running, token: dict[str, str], request_id: str, query: str, user_id: str | None
) -> None:
    assert ask(server, request_id, URL + query, **token) == 400
    assert said(audited(server, request_id)) == ("bad_request", 400, DOCTOR, user_id, 0)


@pytest.mark.parametrize(
    ("request_id", "header"), [("no-token", {}), ("bad-token", {"Authorization": "Bearer x.y.z"})]
)
def test_who_has_no_token(server: Running, request_id: str, header: dict[str, str]) -> None:
    assert ask(server, request_id, **header) == 401
    assert said(audited(server, request_id)) == ("unauthorized", 401, None, DOCTOR, 0)


def test_who_asks_for_another_doctors_cases(server: Running, token: dict[str, str]) -> None:
    assert ask(server, "other", ASKED.replace(DOCTOR, OTHER), **token) == 403
    assert said(audited(server, "other")) == ("forbidden", 403, DOCTOR, OTHER, 0)


def test_a_fault(server: Running, database: CasesDatabase, token: dict[str, str]) -> None:
    with closing(psycopg2.connect(database.owner_dsn)) as writer:
        execute(writer, f"LOCK TABLE {database.layout.relation} IN ACCESS EXCLUSIVE MODE")
        assert ask(server, "fault", **token) == 500
    assert said(audited(server, "fault")) == ("internal_server_error", 500, DOCTOR, DOCTOR, 0)


def begin(server: Running, request_id: str, token: dict[str, str]) -> socket.socket:
    """Ask, and take only the beginning of the answer."""
    connection = server.connect()
    headers = "".join(f"{name}: {value}\r\n" for name, value in token.items())
    connection.sendall(
        f"GET {ASKED} HTTP/1.1\r\nHost: x\r\nX-Request-ID: {request_id}\r\n{headers}\r\n".encode()
    )
    assert b" 200 OK" in connection.recv(100)
    return connection


class TestLongLists:
    """Lists too long to be in the sockets' and the server's buffers as a whole."""

    @pytest.fixture(autouse=True)
    def _long_list(self, database: CasesDatabase) -> None:
        database.add_many([DOCTOR], 40_000)

    def test_given(self, server: Running, token: dict[str, str]) -> None:
        assert ask(server, "long", **token) == 200
        assert said(audited(server, "long")) == ("ok", 200, DOCTOR, DOCTOR, 40_000)

    def test_head(self, server: Running, token: dict[str, str]) -> None:
        assert ask(server, "long-head", method="HEAD", **token) == 200
        assert said(audited(server, "long-head")) == ("ok", 200, DOCTOR, DOCTOR, 0)

    def test_not_changed(self, server: Running, token: dict[str, str]) -> None:
        line = not_modified(server, "long-unchanged", "GET", token)
        assert line == ("not_modified", 304, DOCTOR, DOCTOR, 0)

    def test_broken_off_by_the_database(
        self, server: Running, database: CasesDatabase, token: dict[str, str]
    ) -> None:
        sessions = "FROM pg_stat_activity WHERE usename = 'medmitra_cases' AND datname = current_database()"
        with begin(server, "broken-off", token) as connection:
            execute(database.owner, f"SELECT pg_terminate_backend(pid, 5000) {sessions}")
            while connection.recv(1 << 20):
                pass
        *start, cases = said(audited(server, "broken-off"))
        assert start == ["broken_off", 200, DOCTOR, DOCTOR]
        assert 0 < cases < 40_000

    def test_broken_off_by_the_reader(self, server: Running, token: dict[str, str]) -> None:
        with begin(server, "reader-left", token):
            pass
        *start, cases = said(audited(server, "reader-left"))
        assert start == ["broken_off", 200, DOCTOR, DOCTOR]
        assert 0 < cases < 40_000


@pytest.mark.parametrize(
    ("request_id", "method", "target"),
    [("preflight", "OPTIONS", ASKED), ("post", "POST", ASKED), ("elsewhere", "GET", "/nowhere")],
)
def test_what_asks_for_no_cases_is_not_audited(
    server: Running, token: dict[str, str], request_id: str, method: str, target: str
) -> None:
    ask(server, request_id, target, method)
    ask(server, f"after-{request_id}", **token)
    audited(server, f"after-{request_id}")
    assert f'"{request_id}"' not in server.printed


@pytest.mark.parametrize(
    ("request_id", "forwarded_for", "client"),
    [
        ("proxied", "198.51.100.2", "198.51.100.2"),
        ("proxied-twice", "203.0.113.7, 198.51.100.2", "198.51.100.2"),
        ("proxied-6", "2001:db8::7", "2001:db8::7"),
        ("proxied-4-in-6", "::ffff:198.51.100.2", "::ffff:198.51.100.2"),
        ("proxied-scope", "fe80::1%Zebediah", "127.0.0.1"),
        ("proxied-nonsense", "198.51.100.2, Zebediah Quux", "127.0.0.1"),
    ],
)
def test_the_client_is_the_one_that_the_proxy_names(
    server: Running, token: dict[str, str], request_id: str, forwarded_for: str, client: str
) -> None:
    assert ask(server, request_id, **{"X-Forwarded-For": forwarded_for}, **token) == 200
    # Python writes the last one as ::ffff:c633:6402 before 3.13; it is the same address.
    assert ipaddress.ip_address(audited(server, request_id)["client"]) == ipaddress.ip_address(client)


def test_nobody_else_names_the_client(database: CasesDatabase) -> None:
    # 127.0.0.2 is this machine, too, but not the proxy.
    with (
        serve(database.service_dsn) as server,
        closing(
            http.client.HTTPConnection(
                server.host, server.port, TIMEOUT_SECONDS, source_address=("127.0.0.2", 0)
            )
        ) as connection,
    ):
        connection.request(
            "GET", ASKED, headers={"X-Forwarded-For": "203.0.113.7", "X-Request-ID": "spoofed"}
        )
        assert connection.getresponse().status == 200
        line = audited(server, "spoofed")
    assert line["client"] == "127.0.0.2"
    assert said(line) == ("ok", 200, None, DOCTOR, 0)


def test_the_whole_log_of_a_run_holds_nothing_of_a_patient(
    database: CasesDatabase, token: dict[str, str]
) -> None:
    database.add(case(**PATIENT))
    with serve(
        make_dsn(database.service_dsn, options="-c statement_timeout=200"),
        MEDMITRA_JWT_SECRET=SECRET,
    ) as server:
        assert ask(server, "run-1", **token) == 200
        assert ask(server, "run-2", f"{ASKED}&search=Quux", **token) == 200
        assert ask(server, "run-3", f"{URL}?user_id=Quux", **token) == 400
        assert ask(server, "run-4", f"{URL}?Quux&search=xylophobia") == 401
        assert ask(server, "run-5", ASKED.replace(DOCTOR, OTHER), **token) == 403
        assert ask(server, "run-6", f"/Quux?{DOCTOR}", **token) == 404
        assert ask(server, "run-7", ASKED, "POST", **token) == 405
        with closing(psycopg2.connect(database.owner_dsn)) as writer:
            execute(writer, f"LOCK TABLE {database.layout.relation} IN ACCESS EXCLUSIVE MODE")
            assert ask(server, "run-8", **token) == 500
        database.add_many([DOCTOR], 40_000)
        with begin(server, "run-9", token):
            pass
        audited(server, "run-9")
        assert server.end() == 0
    signature = token["Authorization"].rpartition(".")[2]
    for secret in (
        "Zebediah",
        "Quux",
        "1234567890",
        "xylophobia",
        "Patient ",
        signature,
        SECRET,
        "?",
        "search",
    ):
        assert secret not in server.printed, secret
    # Seven requests for cases among the nine.
    assert server.printed.count('"outcome":') == 7


def test_a_request_that_was_cut_off_is_written_once(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fetch_in_the_end(*args: Any, **kwargs: Any) -> Any:
        audit.write_unfinished()
        return fetch_cases(*args, **kwargs)

    monkeypatch.setattr(reader, "fetch_cases", fetch_in_the_end)
    with caplog.at_level(logging.INFO):
        assert client.get(ASKED, headers={"X-Request-ID": "cut-off"}).status_code == 200
    # Responses that other tests in this process did not close are cut off, too.
    (line,) = (
        json.loads(record.getMessage()) for record in caplog.records if '"cut-off"' in record.getMessage()
    )
    assert said(line) == ("cut_off", None, None, DOCTOR, 0)
