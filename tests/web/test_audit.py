"""The audit log: one line for each request for cases, with its subject and user_id, and no patient data."""

import json
import logging
import re
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
from medmitra_cases.dao.whole import fetch_cases
from medmitra_cases.settings.settings import Settings
from medmitra_cases.web import audit
from tests.support.factories import DOCTOR, CasesDatabase, case, execute, settings
from tests.support.processes import Running, serve
from tests.support.tokens import SECRET

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

URL = "/cases/all_cases"
CASES_URL = f"{URL}?user_id={DOCTOR}"
OTHER = DOCTOR[:-1] + "7"
KEYS = [
    *("time", "request_id", "client", "subject", "user_id"),
    *("outcome", "status", "cases", "duration_ms", "error"),
]
PATIENT = {"patient_name": "Zebediah Quux", "patient_age": 1_234_567_890, "case_summary": "acute xylophobia"}


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    """A service that requires tokens, with a statement timeout of 200 ms."""
    with serve(
        make_dsn(layout_database.service_dsn, options="-c statement_timeout=200"),
        MEDMITRA_JWT_SECRET=SECRET,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def token_settings() -> Settings:
    return settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)


@pytest.fixture
def token(token_settings: Settings) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token(token_settings, DOCTOR, minutes=1)}"}


def audit_line(server: Running, request_id: str) -> dict[str, Any]:
    """Return the one line about the request, after checking what all lines have in common."""
    # The line is written before the response is complete, but it arrives through another pipe.
    server.wait_for(rf'"request_id":"{request_id}"')
    (line,) = (line for line in server.printed.splitlines() if f'"request_id":"{request_id}"' in line)
    found: dict[str, Any] = json.loads(line)
    assert list(found) == KEYS
    assert found["time"].endswith("Z")
    age = datetime.now(timezone.utc) - datetime.fromisoformat(found["time"][:-1] + "+00:00")
    assert timedelta(0) < age < timedelta(minutes=1)
    assert 0 < found["duration_ms"] < 60_000
    return found


def audit_values(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[key] for key in ("outcome", "status", "subject", "user_id", "cases"))


def send(
    server: Running, request_id: str, target: str = CASES_URL, method: str = "GET", **headers: str
) -> int:
    """Send a request with this request id; returns the status."""
    response, _ = server.get(target, method, **{"X-Request-ID": request_id, **headers})
    return response.status


def test_a_200_is_audited_with_its_cases(
    server: Running, database: CasesDatabase, token: dict[str, str]
) -> None:
    database.add(case(), case(), case())
    assert send(server, "ok", CASES_URL.replace(DOCTOR, DOCTOR.upper()), **token) == 200
    line = audit_line(server, "ok")
    assert audit_values(line) == ("ok", 200, DOCTOR, DOCTOR, 3)
    assert line["error"] is None
    assert line["client"] == "127.0.0.1"


def test_head_is_audited_without_cases(
    server: Running, database: CasesDatabase, token: dict[str, str]
) -> None:
    database.add(case())
    assert send(server, "head", method="HEAD", **token) == 200
    assert audit_values(audit_line(server, "head")) == ("ok", 200, DOCTOR, DOCTOR, 0)


def not_modified(server: Running, request_id: str, method: str, token: dict[str, str]) -> tuple[Any, ...]:
    """Send a request with the current ETag; returns the audit values."""
    tag = server.get(CASES_URL, **token)[0].headers["ETag"]
    assert send(server, request_id, method=method, **{"If-None-Match": tag}, **token) == 304
    return audit_values(audit_line(server, request_id))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_304_is_audited_without_cases(
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
def test_a_400_is_audited(
    server: Running, token: dict[str, str], request_id: str, query: str, user_id: str | None
) -> None:
    assert send(server, request_id, URL + query, **token) == 400
    assert audit_values(audit_line(server, request_id)) == ("bad_request", 400, DOCTOR, user_id, 0)


@pytest.mark.parametrize(
    ("request_id", "header"), [("no-token", {}), ("bad-token", {"Authorization": "Bearer x.y.z"})]
)
def test_a_401_is_audited_without_a_subject(server: Running, request_id: str, header: dict[str, str]) -> None:
    assert send(server, request_id, **header) == 401
    assert audit_values(audit_line(server, request_id)) == ("unauthorized", 401, None, DOCTOR, 0)


def test_a_403_is_audited_with_both_doctors(server: Running, token: dict[str, str]) -> None:
    assert send(server, "other", CASES_URL.replace(DOCTOR, OTHER), **token) == 403
    assert audit_values(audit_line(server, "other")) == ("forbidden", 403, DOCTOR, OTHER, 0)


def test_a_500_is_audited(server: Running, database: CasesDatabase, token: dict[str, str]) -> None:
    with closing(psycopg2.connect(database.owner_dsn)) as writer:
        execute(writer, f"LOCK TABLE {database.layout.relation} IN ACCESS EXCLUSIVE MODE")
        assert send(server, "fault", **token) == 500
    line = audit_line(server, "fault")
    assert audit_values(line) == ("internal_server_error", 500, DOCTOR, DOCTOR, 0)
    assert line["error"] == "query_timed_out"


def start_response(server: Running, request_id: str, token: dict[str, str]) -> socket.socket:
    """Send a request, and read only the beginning of the response."""
    connection = server.connect()
    headers = "".join(f"{name}: {value}\r\n" for name, value in token.items())
    connection.sendall(
        f"GET {CASES_URL} HTTP/1.1\r\nHost: x\r\nX-Request-ID: {request_id}\r\n{headers}\r\n".encode()
    )
    assert b" 200 OK" in connection.recv(100)
    return connection


class TestLongLists:
    """Lists that are longer than the buffers of the sockets and the server."""

    @pytest.fixture(autouse=True)
    def _long_list(self, database: CasesDatabase) -> None:
        database.add_many([DOCTOR], 40_000)

    def test_a_complete_list_is_audited_with_its_cases(self, server: Running, token: dict[str, str]) -> None:
        assert send(server, "long", **token) == 200
        assert audit_values(audit_line(server, "long")) == ("ok", 200, DOCTOR, DOCTOR, 40_000)

    def test_head_is_audited_without_cases(self, server: Running, token: dict[str, str]) -> None:
        assert send(server, "long-head", method="HEAD", **token) == 200
        assert audit_values(audit_line(server, "long-head")) == ("ok", 200, DOCTOR, DOCTOR, 0)

    def test_a_304_is_audited_without_cases(self, server: Running, token: dict[str, str]) -> None:
        line = not_modified(server, "long-unchanged", "GET", token)
        assert line == ("not_modified", 304, DOCTOR, DOCTOR, 0)

    def test_a_list_that_the_database_interrupts_is_audited_as_broken_off(
        self, server: Running, database: CasesDatabase, token: dict[str, str]
    ) -> None:
        sessions = "FROM pg_stat_activity WHERE usename = 'medmitra_cases' AND datname = current_database()"
        with start_response(server, "broken-off", token) as connection:
            execute(database.owner, f"SELECT pg_terminate_backend(pid, 5000) {sessions}")
            while connection.recv(1 << 20):
                pass
        line = audit_line(server, "broken-off")
        *start, cases = audit_values(line)
        assert start == ["broken_off", 200, DOCTOR, DOCTOR]
        assert line["error"] == "database_unavailable"
        assert 0 < cases < 40_000

    def test_a_list_that_the_client_interrupts_is_audited_as_broken_off(
        self, server: Running, token: dict[str, str]
    ) -> None:
        with start_response(server, "client-left", token):
            pass
        line = audit_line(server, "client-left")
        *start, cases = audit_values(line)
        assert start == ["broken_off", 200, DOCTOR, DOCTOR]
        assert line["error"] is None
        assert 0 < cases < 40_000


@pytest.mark.parametrize(
    ("request_id", "method", "target"),
    [("preflight", "OPTIONS", CASES_URL), ("post", "POST", CASES_URL), ("elsewhere", "GET", "/nowhere")],
)
def test_a_request_that_is_not_for_cases_is_not_audited(
    server: Running, token: dict[str, str], request_id: str, method: str, target: str
) -> None:
    send(server, request_id, target, method)
    send(server, f"after-{request_id}", **token)
    audit_line(server, f"after-{request_id}")
    assert f'"{request_id}"' not in server.printed


REFUSED = {
    "413": (f"GET {CASES_URL} HTTP/1.1", "Content-Length: 65537", 413),
    "413-post": (f"POST {CASES_URL} HTTP/1.1", "Content-Length: 65537", 413),
    "413-chunks": (
        f"POST {CASES_URL} HTTP/1.1",
        f"Transfer-Encoding: chunked\r\n\r\nffff\r\n{'x' * 65_535}\r\n9\r\n{'x' * 9}",
        413,
    ),
    "431": (f"GET {CASES_URL} HTTP/1.1", f"X: {'x' * 262_144}", 431),
    "431-target": (
        f"GET {CASES_URL}&x={'x' * 262_144} HTTP/1.1",
        "X: x",
        431,
    ),
    "431-fields": (f"GET {CASES_URL} HTTP/1.1", "\r\n".join(["X: x"] * 101), 431),
    "501": (f"GET {CASES_URL} HTTP/1.1", "Transfer-Encoding: gzip", 501),
    "400-length": (f"GET {CASES_URL} HTTP/1.1", "Content-Length: many", 400),
    "400-digits": (f"GET {CASES_URL} HTTP/1.1", f"Content-Length: {'9' * 5_000}", 400),
    "400-name": (f"GET {CASES_URL} HTTP/1.1", "Zebediah Quux: x", 400),
    "400-line-feed": (f"GET {CASES_URL} HTTP/1.1", "Authorization: Bearer Zebediah\n", 400),
    "400-chunk": (f"GET {CASES_URL} HTTP/1.1", "Transfer-Encoding: chunked\r\n\r\nquux", 400),
    "400-method": (f"get {CASES_URL} HTTP/1.1", "X: x", 400),
    "400-spaces": (f"GET  {CASES_URL} HTTP/1.1", "X: x", 400),
    "400-version": (f"GET {CASES_URL} HTTP/Zebediah", "X: x", 400),
    "400-absolute": (f"GET http://x{CASES_URL} HTTP/1.1", "Content-Length: many", 400),
    "400-slashes": (f"GET //{CASES_URL} HTTP/1.1", "Content-Length: many", 400),
    "400-nobody": (f"GET {URL}?user_id=Zebediah HTTP/1.1", "Content-Length: many", 400),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("position", ["before", "after"])
def test_a_request_that_the_server_refuses_is_audited(server: Running, name: str, position: str) -> None:
    request_line, field, status = REFUSED[name]
    if position == "before":
        fields = ["X-Request-ID: refused-" + name, "X-Forwarded-For: 203.0.113.7, 198.51.100.2", field]
    else:
        fields = [field]
    answer = server.send("\r\n".join([request_line, "Host: x", *fields, "", ""]).encode())
    request_id = re.findall(rb"X-Request-Id: (\S+)", answer)[0].decode()
    user_id = None if name == "400-nobody" else DOCTOR
    line = audit_line(server, request_id)
    assert audit_values(line) == ("refused", status, None, user_id, 0)
    if position == "after":
        assert line["client"] == "127.0.0.1"
    elif name != "431-target":  # the fields are after the limit
        assert (line["client"], request_id) == ("198.51.100.2", f"refused-{name}")
    assert "Zebediah" not in server.printed


@pytest.mark.parametrize(
    "request_line",
    ["GET /nowhere HTTP/1.1", "Zebediah", "GET http://[ HTTP/1.1", f"GET x{CASES_URL} HTTP/1.1"],
)
def test_a_refused_request_for_another_path_is_not_audited(
    server: Running, token: dict[str, str], request_line: str
) -> None:
    answer = server.send(f"{request_line}\r\nContent-Length: many\r\n\r\n".encode())
    request_id = re.findall(rb"X-Request-Id: (\S+)", answer)[0].decode()
    send(server, f"after-{request_id}", **token)
    audit_line(server, f"after-{request_id}")
    assert f'"{request_id}"' not in server.printed


def test_the_line_of_a_refused_request_contains_nothing_of_the_next_request(server: Running) -> None:
    answer = server.send(
        f"GET {CASES_URL} HTTP/1.1\r\nContent-Length: many\r\n\r\n"
        f"GET {CASES_URL} HTTP/1.1\r\nX-Request-ID: the-next\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n".encode()
    )
    request_id = re.findall(rb"X-Request-Id: (\S+)", answer)[0].decode()
    assert audit_line(server, request_id)["client"] == "127.0.0.1"
    assert "the-next" not in server.printed


@pytest.mark.parametrize(
    ("request_id", "query", "user_id"),
    [
        ("late", f"{'a&' * 8_000}user_id={DOCTOR}&{'a&' * 7_000}", DOCTOR),
        ("capitals", f"user_id={DOCTOR.upper()}", DOCTOR),
        ("twice", f"user_id={DOCTOR}&user_id={OTHER}", None),
        ("in-another", f"xuser_id={DOCTOR}", None),
        ("longer", f"user_id={DOCTOR}0", None),
        ("nonsense", "user_id=Zebediah%20Quux", None),
        ("bytes", "user_id=%C3%A9", None),
        ("absent", "a&" * 15_000, None),
        # Not found, as nothing is decoded before the token is valid.
        ("encoded", f"user%5Fid={DOCTOR}", None),
    ],
)
def test_the_user_id_of_a_401(server: Running, request_id: str, query: str, user_id: str | None) -> None:
    assert send(server, f"no-token-{request_id}", f"{URL}?{query}") == 401
    assert audit_values(audit_line(server, f"no-token-{request_id}")) == (
        "unauthorized",
        401,
        None,
        user_id,
        0,
    )


def test_the_log_of_a_run_has_no_patient_data(database: CasesDatabase, token: dict[str, str]) -> None:
    database.add(case(**PATIENT))
    with serve(
        make_dsn(database.service_dsn, options="-c statement_timeout=200"),
        MEDMITRA_JWT_SECRET=SECRET,
    ) as server:
        assert send(server, "run-1", **token) == 200
        assert send(server, "run-2", f"{CASES_URL}&search=Quux", **token) == 200
        assert send(server, "run-3", f"{URL}?user_id=Quux", **token) == 400
        assert send(server, "run-4", f"{URL}?Quux&search=xylophobia") == 401
        assert send(server, "run-5", CASES_URL.replace(DOCTOR, OTHER), **token) == 403
        assert send(server, "run-6", f"/Quux?{DOCTOR}", **token) == 404
        assert send(server, "run-7", CASES_URL, "POST", **token) == 405
        with closing(psycopg2.connect(database.owner_dsn)) as writer:
            execute(writer, f"LOCK TABLE {database.layout.relation} IN ACCESS EXCLUSIVE MODE")
            assert send(server, "run-8", **token) == 500
        database.add_many([DOCTOR], 40_000)
        with start_response(server, "run-9", token):
            pass
        audit_line(server, "run-9")
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
    # Seven of the nine requests are for cases.
    assert server.printed.count('"outcome":') == 7


def test_a_request_that_is_cut_off_is_audited_once(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cut_off_then_fetch(*args: Any, **kwargs: Any) -> Any:
        audit.write_unfinished()
        return fetch_cases(*args, **kwargs)

    monkeypatch.setattr(reader, "fetch_cases", cut_off_then_fetch)
    with caplog.at_level(logging.INFO):
        assert client.get(CASES_URL, headers={"X-Request-ID": "cut-off"}).status_code == 200
    # Responses that other tests in this process left open are cut off, too.
    (line,) = (
        json.loads(record.getMessage()) for record in caplog.records if '"cut-off"' in record.getMessage()
    )
    assert audit_values(line) == ("cut_off", None, None, DOCTOR, 0)
