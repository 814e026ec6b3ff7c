"""The service's own log: a line for each event, as text or as JSON, that names its request and nobody."""

import http.client
import json
import logging
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from medmitra_cases.telemetry import request_id
from medmitra_cases.telemetry.handler import LineHandler
from medmitra_cases.telemetry.logs import JsonFormatter, TextFormatter
from tests.support.factories import DOCTOR, CasesDatabase, case, execute
from tests.support.processes import TIMEOUT_SECONDS, Running, run, running, serve, wait_until

# The table's layout has no say in any of this.
pytestmark = [
    pytest.mark.parametrize("layout_database", ["own_table"], indirect=True),
    pytest.mark.usefixtures("layout_database"),
]

URL = "/cases/all_cases"
ASKED = f"{URL}?user_id={DOCTOR}"
OTHER = DOCTOR[:-1] + "7"
SERVE = ("serve", "--listen", "127.0.0.1:0")
FORMATS = ["text", "json"]
MADE = re.compile(r"[0-9a-f]{16}")
TEXT_LINE = re.compile(
    r"(?P<time>\S{10}T\d\d:\d\d:\d\d\.\d{3}Z) (?P<level>[A-Z]+) (?P<logger>[a-z_.]+): (?P<message>.+)"
)
KEYS = ["time", "level", "logger", "request_id", "message"]

# The command, with two mistakes of ours in it: one that the application meets, and one that the server meets.
MISTAKEN = f"""
import sys
from medmitra_cases import app
from medmitra_cases.cli import main as cli
from medmitra_cases.dao import reader

def fetch_cases(connection, bound, max_rows):
    if bound.query.user_id == {OTHER!r}:
        raise RuntimeError("a mistake\\nof ours")
    return fetch(connection, bound, max_rows)

def wsgi_app(self, environ, start_response):
    answer = serve(self, environ, start_response)
    if environ["PATH_INFO"].startswith("/mistake"):
        raise RuntimeError("another mistake\\nof ours")
    return answer

fetch, reader.fetch_cases = reader.fetch_cases, fetch_cases
serve, app.Application.wsgi_app = app.Application.wsgi_app, wsgi_app
sys.argv[0] = "medmitra-cases"
cli.main()
"""


@pytest.fixture(scope="module", params=FORMATS)
def server(layout_database: CasesDatabase, request: pytest.FixtureRequest) -> Iterator[Running]:
    """The service with the mistakes, two threads, and either format."""
    with running(
        *(sys.executable, "-c", MISTAKEN, *SERVE),
        DATABASE_URL=layout_database.service_dsn,
        MEDMITRA_THREADS="2",
        MEDMITRA_LOG_FORMAT=request.param,
    ) as server:
        yield server


def lines(server: Running) -> list[dict[str, Any]]:
    """What it has logged so far, in either format; asserts what all lines have in common."""
    found = []
    for line in server.printed.splitlines():
        if line.startswith("Serving cases on") or '"outcome":' in line:
            continue
        if line.startswith("{"):
            entry = json.loads(line)
            assert list(entry) in (KEYS, [*KEYS, "traceback"])
        else:
            match = TEXT_LINE.fullmatch(line)
            assert match is not None, line
            entry = match.groupdict()
            name = re.search(r"\brequest ([A-Za-z0-9._-]+)", entry["message"])
            entry["request_id"] = name and name[1]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", entry["time"])
        assert entry["level"] in ("INFO", "WARNING", "ERROR")
        found.append(entry)
    return found


def logged(server: Running, name: str) -> dict[str, Any]:
    """The one line that was logged of this request."""
    wait_until(lambda: any(line["request_id"] == name for line in lines(server)))
    (line,) = (line for line in lines(server) if line["request_id"] == name)
    return line


def ask(server: Running, name: str, target: str = ASKED) -> int:
    response, _ = server.get(target, **{"X-Request-ID": name})
    assert response.headers["X-Request-ID"] == name
    return response.status


def test_a_mistake_of_ours_is_one_line_with_its_traceback(server: Running) -> None:
    assert ask(server, "mistake-1", ASKED.replace(DOCTOR, OTHER)) == 500
    line = logged(server, "mistake-1")
    assert (line["level"], line["logger"]) == ("ERROR", "medmitra_cases.web.error_handlers")
    assert "request mistake-1 failed: unexpected error" in line["message"]
    trace = line.get("traceback", line["message"])
    assert "Traceback (most recent call last)" in trace
    assert "RuntimeError: a mistake" in trace
    assert "fetch_cases" in trace


def test_a_mistake_that_the_server_meets_is_one_line_too(server: Running) -> None:
    response, body = server.get("/mistake", **{"X-Request-ID": "mistake-2"})
    assert response.status == 500
    assert json.loads(body) == {"detail": "Internal server error: unexpected error"}
    assert response.headers["X-Request-ID"] == "mistake-2"
    line = logged(server, "mistake-2")
    assert (line["level"], line["logger"]) == ("ERROR", "waitress")
    assert "RuntimeError: another mistake" in line.get("traceback", line["message"])


def test_who_leaves_in_the_middle_of_a_list_is_named_by_the_request(
    server: Running, database: CasesDatabase
) -> None:
    database.add_many([DOCTOR], 40_000)
    with server.connect() as leaving:
        leaving.sendall(f"GET {ASKED} HTTP/1.1\r\nHost: x\r\nX-Request-ID: leaving\r\n\r\n".encode())
        assert leaving.recv(100)
    line = logged(server, "leaving")
    assert (line["level"], line["logger"]) == ("INFO", "waitress")
    assert line["message"].startswith(f"Client disconnected while serving {URL}")
    assert DOCTOR not in line["message"]


def test_a_list_that_the_database_breaks_off_is_one_line(server: Running, database: CasesDatabase) -> None:
    database.add_many([DOCTOR], 40_000)
    with server.connect() as reading:
        reading.sendall(f"GET {ASKED} HTTP/1.1\r\nHost: x\r\nX-Request-ID: broken\r\n\r\n".encode())
        assert reading.recv(100)
        service = "usename = 'medmitra_cases' AND datname = current_database()"
        execute(
            database.owner, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {service}"
        )
        while reading.recv(1 << 20):
            pass
    line = logged(server, "broken")
    assert (line["level"], line["logger"]) == ("ERROR", "medmitra_cases.web.error_handlers")
    assert line["message"].startswith("request broken broken off: database unavailable (OperationalError: ")
    # Nor does the server add anything of its own.
    assert ask(server, "after-the-break", ASKED.replace(DOCTOR, OTHER)) == 500
    logged(server, "after-the-break")
    logged(server, "broken")


def test_a_path_cannot_write_lines_of_its_own(server: Running) -> None:
    server.get("/mistake%0A2026-01-01T00:00:00.000Z%20INFO%20forged:%20line%0D%0A{}")
    server.get("/x%0Aforged")
    assert ask(server, "after-the-forged", ASKED.replace(DOCTOR, OTHER)) == 500
    logged(server, "after-the-forged")
    assert all(line["logger"] != "forged" for line in lines(server))


def names_in(head: bytes) -> list[str]:
    """The ids in an answer's header."""
    return re.findall(r"^X-Request-Id: ([^\r\n]*)", head.decode("latin-1"), re.MULTILINE)


@pytest.mark.parametrize("name", ["0", "a" * 64, "3f9c0a7be1d2485c", "Night.Shift_1-2"])
@pytest.mark.usefixtures("database")
def test_a_name_for_the_request_is_taken_over_everywhere(server: Running, name: str) -> None:
    assert ask(server, name) == 200
    server.wait_for(rf'"request_id":"{re.escape(name)}","client"')  # the audit
    assert ask(server, f"x{name}"[:64], ASKED.replace(DOCTOR, OTHER)) == 500
    logged(server, f"x{name}"[:64])


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"X-Request-ID:",
        b"X-Request-ID: " + b"a" * 65,
        b"X-Request-ID: a b",
        b"X-Request-ID: a,b",
        b"X-Request-ID: a\r\nX-Request-ID: b",
        b'X-Request-ID: ","outcome":"ok',
        b"X-Request-ID: \xc3\xa9",
        b"X-Request-ID: \xd9\xa3",
        b"X-Request-ID: a%0Ab",
        b"X-Request-ID: a\x85b",
        b"X_Request_ID: abc",
    ],
)
def test_a_name_that_is_not_sane_is_replaced_everywhere(server: Running, sent: bytes) -> None:
    head, _, body = server.send(
        f"GET {ASKED.replace(DOCTOR, OTHER)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
        + sent
        + b"\r\n\r\n"
    ).partition(b"\r\n\r\n")
    (name,) = names_in(head)
    assert MADE.fullmatch(name)
    assert json.loads(body) == {"detail": f"Internal server error: unexpected error (request id {name})"}
    logged(server, name)
    server.wait_for(rf'"request_id":"{name}","client"')


@pytest.mark.parametrize("sent", [b"a\nsmuggled: line", b"a\r\n smuggled", b"a\rsmuggled"])
def test_a_name_cannot_write_lines_of_its_own(server: Running, sent: bytes) -> None:
    head, _, _ = server.send(
        f"GET {URL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: ".encode() + sent + b"\r\n\r\n"
    ).partition(b"\r\n\r\n")
    (name,) = names_in(head)
    assert MADE.fullmatch(name)
    assert b"smuggled" not in head
    assert "smuggled" not in server.printed


@pytest.mark.parametrize(
    ("request_head", "name"),
    [
        (b"GET  / HTTP/1.1", ""),
        (b"s3cr3t", ""),
        (b"GET / HTTP/1.1\r\nX-Request-ID: a\x00b", ""),
        (b"GET / HTTP/1.1\r\nX-Request-ID: a\x0bb", ""),
        (b"POST / HTTP/1.1\r\nX-Request-ID: refused\r\nContent-Length: 65537", "refused"),
        (b"POST / HTTP/1.1\r\nX-Request-ID: a b\r\nContent-Length: 65537", ""),
        (b"POST / HTTP/1.1\r\nX-Request-ID: refused\r\nTransfer-Encoding: gzip", "refused"),
    ],
)
def test_refusals_have_a_name_too(server: Running, request_head: bytes, name: str) -> None:
    head, _, body = server.send(request_head + b"\r\n\r\n").partition(b"\r\n\r\n")
    (found,) = names_in(head)
    assert found == name or (not name and MADE.fullmatch(found))
    assert list(json.loads(body)) == ["detail"]


def test_what_is_said_at_start_belongs_to_no_request(server: Running) -> None:
    (line,) = (line for line in lines(server) if "no tokens are required" in line["message"])
    assert (line["level"], line["request_id"]) == ("WARNING", None)


def test_the_queue_is_not_news(server: Running, database: CasesDatabase) -> None:
    before = len(lines(server))
    with database.locked() as writer, ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(server.get, ASKED) for _ in range(20)]
        wait_until(lambda: len(database.waiting) == 2)
        writer.rollback()
        assert [answer.result()[0].status for answer in answers] == [200] * 20
    assert ask(server, "after-the-queue", ASKED.replace(DOCTOR, OTHER)) == 500
    logged(server, "after-the-queue")
    assert len(lines(server)) == before + 1


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_database_that_is_gone_is_one_line_for_each_request(log_format: str) -> None:
    with serve(
        "postgresql://reader:hunter2@127.0.0.1:1/clinic",
        MEDMITRA_DATABASE_WAIT_SECONDS="0",
        MEDMITRA_LOG_FORMAT=log_format,
    ) as server:
        for number in range(3):
            assert ask(server, f"gone-{number}") == 500
        assert server.end() == 0
    for number in range(3):
        line = logged(server, f"gone-{number}")
        assert line["level"] == "ERROR"
        assert "failed: database unavailable (OperationalError: " in line["message"]
        assert "Connection refused" in line["message"]
        assert "traceback" not in line
    assert "Traceback" not in server.printed
    assert "hunter2" not in server.printed


def test_nothing_of_patients(server: Running, database: CasesDatabase) -> None:
    database.add(case(patient_name="Zebediah Quux", case_summary="acute xylophobia"))
    for target in (ASKED, f"{ASKED}&search=Quux", f"{URL}?user_id=Quux", "/nowhere?Quux"):
        server.get(target, Authorization="Bearer s3cr3t")
    ask(server, "after-the-patient", ASKED.replace(DOCTOR, OTHER))
    logged(server, "after-the-patient")
    for secret in ("Zebediah", "Quux", "xylophobia", "s3cr3t", "search"):
        assert secret not in server.printed, secret


def test_a_connection_that_is_kept_has_a_name_for_each_request(server: Running) -> None:
    with closing(http.client.HTTPConnection(server.host, server.port, timeout=TIMEOUT_SECONDS)) as connection:
        names = []
        for _ in range(3):
            connection.request("GET", ASKED.replace(DOCTOR, OTHER))
            response = connection.getresponse()
            names.append(response.headers["X-Request-ID"])
            response.read()
    assert len(set(names)) == 3
    for name in names:
        logged(server, name)


def test_another_format_is_a_mistake_in_the_settings() -> None:
    ended = run(*SERVE, DATABASE_URL="host=127.0.0.1", MEDMITRA_LOG_FORMAT="xml")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "Error: MEDMITRA_LOG_FORMAT must be text or json\n"


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("some.logger", logging.WARNING, "", 1, message, arguments, None)


@pytest.mark.parametrize("message", ["two\nlines", "two\r\nlines", "\x1b[2Jcleared", "é", "\udcff"])
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=FORMATS)
def test_whatever_is_said_is_one_line_of_utf_8(formatter: logging.Formatter, message: str) -> None:
    line = formatter.format(record("%s", message))
    assert "\n" not in line
    assert "\r" not in line
    assert "\x1b" not in line
    line.encode(errors="backslashreplace")  # as stderr does


def test_what_cannot_be_logged_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LineHandler()
    handler.setFormatter(JsonFormatter())
    handler.emit(record("%d clients", "three"))
    handler.emit(record("%s clients", "four"))
    handler.flush()
    *complaint, line = capsys.readouterr().err.splitlines()
    assert complaint[0] == "--- Logging error ---"
    assert json.loads(line)["message"] == "four clients"


def test_who_logs_too_much_waits_until_it_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medmitra_cases.telemetry.handler.MAX_QUEUED_LINES", 0)
    handler = LineHandler()
    handler.setFormatter(TextFormatter())
    for number in range(20):
        handler.emit(record("line %d", number))
    handler.flush()
    assert capsys.readouterr().err.count("some.logger: line ") == 20


def test_a_line_of_json() -> None:
    request_id.start("night-shift")
    found = json.loads(JsonFormatter().format(record("%d clients", 3)))
    assert found == {
        "time": found["time"],
        "level": "WARNING",
        "logger": "some.logger",
        "request_id": "night-shift",
        "message": "3 clients",
    }
