"""The service's log: one line for each event, as text or JSON, with the request id but no personal data."""

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

# These tests do not depend on the table layout.
pytestmark = [
    pytest.mark.parametrize("layout_database", ["own_table"], indirect=True),
    pytest.mark.usefixtures("layout_database"),
]

URL = "/cases/all_cases"
TARGET = f"{URL}?user_id={DOCTOR}"
OTHER_DOCTOR = DOCTOR[:-1] + "7"
SERVE = ("serve", "--listen", "127.0.0.1:0")
FORMATS = ["text", "json"]
GENERATED_ID = re.compile(r"[0-9a-f]{16}")
TEXT_LINE = re.compile(
    r"(?P<time>\S{10}T\d\d:\d\d:\d\d\.\d{3}Z) (?P<level>[A-Z]+) (?P<logger>[a-z_.]+): (?P<message>.+)"
)
KEYS = ["time", "level", "logger", "request_id", "message"]

# The command with two programming errors: the application catches the first one, the server the second.
FAULTY_SERVICE = f"""
import sys
from medmitra_cases import app
from medmitra_cases.cli import main as cli
from medmitra_cases.dao import reader

def fetch_cases(connection, bound, max_rows):
    if bound.query.user_id == {OTHER_DOCTOR!r}:
        raise RuntimeError("a mistake\\nin two lines")
    return fetch(connection, bound, max_rows)

def wsgi_app(self, environ, start_response):
    response = serve(self, environ, start_response)
    if environ["PATH_INFO"].startswith("/mistake"):
        raise RuntimeError("another mistake\\nin two lines")
    return response

fetch, reader.fetch_cases = reader.fetch_cases, fetch_cases
serve, app.Application.wsgi_app = app.Application.wsgi_app, wsgi_app
sys.argv[0] = "medmitra-cases"
cli.main()
"""


@pytest.fixture(scope="module", params=FORMATS)
def server(layout_database: CasesDatabase, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Run the service with these errors, two requests at a time, and one of the formats."""
    with running(
        *(sys.executable, "-c", FAULTY_SERVICE, *SERVE),
        DATABASE_URL=layout_database.service_dsn,
        MEDMITRA_THREADS="2",
        MEDMITRA_LOG_FORMAT=request.param,
    ) as server:
        yield server


def lines(server: Running) -> list[dict[str, Any]]:
    """Return the lines logged so far, in either format, and check the properties that all lines share."""
    entries = []
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
            found_id = re.search(r"\brequest ([A-Za-z0-9._-]+)", entry["message"])
            entry["request_id"] = found_id and found_id[1]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", entry["time"])
        assert entry["level"] in ("INFO", "WARNING", "ERROR")
        entries.append(entry)
    return entries


def logged(server: Running, request_id: str) -> dict[str, Any]:
    """Wait for the log line of this request, and return it; fail if there are two."""
    wait_until(lambda: any(line["request_id"] == request_id for line in lines(server)))
    (line,) = (line for line in lines(server) if line["request_id"] == request_id)
    return line


def get(server: Running, request_id: str, target: str = TARGET) -> int:
    response, _ = server.get(target, **{"X-Request-ID": request_id})
    assert response.headers["X-Request-ID"] == request_id
    return response.status


def test_an_error_in_the_application_logs_one_line_with_a_traceback(server: Running) -> None:
    assert get(server, "mistake-1", TARGET.replace(DOCTOR, OTHER_DOCTOR)) == 500
    line = logged(server, "mistake-1")
    assert (line["level"], line["logger"]) == ("ERROR", "medmitra_cases.web.error_handlers")
    assert "request mistake-1 failed: unexpected error" in line["message"]
    trace = line.get("traceback", line["message"])
    assert "Traceback (most recent call last)" in trace
    assert "RuntimeError: a mistake" in trace
    assert "fetch_cases" in trace


def test_an_error_in_the_server_logs_one_line_with_a_traceback(server: Running) -> None:
    response, body = server.get("/mistake", **{"X-Request-ID": "mistake-2"})
    assert response.status == 500
    assert json.loads(body) == {"detail": "Internal server error: unexpected error"}
    assert response.headers["X-Request-ID"] == "mistake-2"
    line = logged(server, "mistake-2")
    assert (line["level"], line["logger"]) == ("ERROR", "waitress")
    assert "RuntimeError: another mistake" in line.get("traceback", line["message"])


def test_a_disconnect_during_a_response_is_logged_with_the_request_id(
    server: Running, database: CasesDatabase
) -> None:
    database.add_many([DOCTOR], 40_000)
    with server.connect() as client:
        client.sendall(f"GET {TARGET} HTTP/1.1\r\nHost: x\r\nX-Request-ID: leaving\r\n\r\n".encode())
        assert client.recv(100)
    line = logged(server, "leaving")
    assert (line["level"], line["logger"]) == ("INFO", "waitress")
    assert line["message"].startswith(f"Client disconnected while serving {URL}")
    assert DOCTOR not in line["message"]


def test_a_lost_connection_during_a_response_logs_one_line(server: Running, database: CasesDatabase) -> None:
    database.add_many([DOCTOR], 40_000)
    with server.connect() as client:
        client.sendall(f"GET {TARGET} HTTP/1.1\r\nHost: x\r\nX-Request-ID: broken\r\n\r\n".encode())
        assert client.recv(100)
        service = "usename = 'medmitra_cases' AND datname = current_database()"
        execute(
            database.owner, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {service}"
        )
        while client.recv(1 << 20):
            pass
    line = logged(server, "broken")
    assert (line["level"], line["logger"]) == ("ERROR", "medmitra_cases.web.error_handlers")
    assert line["message"].startswith("request broken broken off: database unavailable (OperationalError: ")
    # The server itself logs nothing more.
    assert get(server, "after-the-break", TARGET.replace(DOCTOR, OTHER_DOCTOR)) == 500
    logged(server, "after-the-break")
    logged(server, "broken")


def test_a_path_cannot_add_log_lines(server: Running) -> None:
    server.get("/mistake%0A2026-01-01T00:00:00.000Z%20INFO%20forged:%20line%0D%0A{}")
    server.get("/x%0Aforged")
    assert get(server, "after-the-forged", TARGET.replace(DOCTOR, OTHER_DOCTOR)) == 500
    logged(server, "after-the-forged")
    assert all(line["logger"] != "forged" for line in lines(server))


def request_ids_in(head: bytes) -> list[str]:
    """Return the request ids in the header of a response."""
    return re.findall(r"^X-Request-Id: ([^\r\n]*)", head.decode("latin-1"), re.MULTILINE)


@pytest.mark.parametrize("request_id", ["0", "a" * 64, "3f9c0a7be1d2485c", "Night.Shift_1-2"])
@pytest.mark.usefixtures("database")
def test_a_valid_request_id_is_used_everywhere(server: Running, request_id: str) -> None:
    assert get(server, request_id) == 200
    server.wait_for(rf'"request_id":"{re.escape(request_id)}","client"')  # the audit
    assert get(server, f"x{request_id}"[:64], TARGET.replace(DOCTOR, OTHER_DOCTOR)) == 500
    logged(server, f"x{request_id}"[:64])


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
def test_an_invalid_request_id_is_replaced_everywhere(server: Running, sent: bytes) -> None:
    head, _, body = server.send(
        f"GET {TARGET.replace(DOCTOR, OTHER_DOCTOR)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
        + sent
        + b"\r\n\r\n"
    ).partition(b"\r\n\r\n")
    (new_id,) = request_ids_in(head)
    assert GENERATED_ID.fullmatch(new_id)
    assert json.loads(body) == {"detail": f"Internal server error: unexpected error (request id {new_id})"}
    logged(server, new_id)
    server.wait_for(rf'"request_id":"{new_id}","client"')


@pytest.mark.parametrize("sent", [b"a\nsmuggled: line", b"a\r\n smuggled", b"a\rsmuggled"])
def test_a_request_id_cannot_add_headers_or_log_lines(server: Running, sent: bytes) -> None:
    head, _, _ = server.send(
        f"GET {URL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: ".encode() + sent + b"\r\n\r\n"
    ).partition(b"\r\n\r\n")
    (new_id,) = request_ids_in(head)
    assert GENERATED_ID.fullmatch(new_id)
    assert b"smuggled" not in head
    assert "smuggled" not in server.printed


@pytest.mark.parametrize(
    ("request_head", "request_id"),
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
def test_rejected_requests_have_a_request_id(server: Running, request_head: bytes, request_id: str) -> None:
    head, _, body = server.send(request_head + b"\r\n\r\n").partition(b"\r\n\r\n")
    (found,) = request_ids_in(head)
    assert found == request_id or (not request_id and GENERATED_ID.fullmatch(found))
    assert list(json.loads(body)) == ["detail"]


def test_lines_of_the_start_have_no_request_id(server: Running) -> None:
    (line,) = (line for line in lines(server) if "no tokens are required" in line["message"])
    assert (line["level"], line["request_id"]) == ("WARNING", None)


def test_queued_requests_are_not_logged(server: Running, database: CasesDatabase) -> None:
    assert get(server, "before-the-queue", TARGET.replace(DOCTOR, OTHER_DOCTOR)) == 500
    logged(server, "before-the-queue")  # and so is all that came before it
    before = len(lines(server))
    with database.locked() as writer, ThreadPoolExecutor(20) as pool:
        responses = [pool.submit(server.get, TARGET) for _ in range(20)]
        wait_until(lambda: len(database.waiting) == 2)
        writer.rollback()
        assert [response.result()[0].status for response in responses] == [200] * 20
    assert get(server, "after-the-queue", TARGET.replace(DOCTOR, OTHER_DOCTOR)) == 500
    logged(server, "after-the-queue")
    assert len(lines(server)) == before + 1


@pytest.mark.parametrize("log_format", FORMATS)
def test_an_unreachable_database_logs_one_line_for_each_request(log_format: str) -> None:
    with serve(
        "postgresql://reader:hunter2@127.0.0.1:1/clinic",
        MEDMITRA_DATABASE_WAIT_SECONDS="0",
        MEDMITRA_LOG_FORMAT=log_format,
    ) as server:
        for number in range(3):
            assert get(server, f"gone-{number}") == 500
        assert server.end() == 0
    for number in range(3):
        line = logged(server, f"gone-{number}")
        assert line["level"] == "ERROR"
        assert "failed: database unavailable (OperationalError: " in line["message"]
        assert "Connection refused" in line["message"]
        assert "traceback" not in line
    assert "Traceback" not in server.printed
    assert "hunter2" not in server.printed


def test_the_log_has_no_data_of_patients(server: Running, database: CasesDatabase) -> None:
    database.add(case(patient_name="Zebediah Quux", case_summary="acute xylophobia"))
    for target in (TARGET, f"{TARGET}&search=Quux", f"{URL}?user_id=Quux", "/nowhere?Quux"):
        server.get(target, Authorization="Bearer s3cr3t")
    get(server, "after-the-patient", TARGET.replace(DOCTOR, OTHER_DOCTOR))
    logged(server, "after-the-patient")
    for secret in ("Zebediah", "Quux", "xylophobia", "s3cr3t", "search"):
        assert secret not in server.printed, secret


def test_each_request_on_a_kept_connection_has_its_own_id(server: Running) -> None:
    with closing(http.client.HTTPConnection(server.host, server.port, timeout=TIMEOUT_SECONDS)) as connection:
        request_ids = []
        for _ in range(3):
            connection.request("GET", TARGET.replace(DOCTOR, OTHER_DOCTOR))
            response = connection.getresponse()
            request_ids.append(response.headers["X-Request-ID"])
            response.read()
    assert len(set(request_ids)) == 3
    for each in request_ids:
        logged(server, each)


def test_serve_rejects_an_unknown_log_format() -> None:
    result = run(*SERVE, DATABASE_URL="host=127.0.0.1", MEDMITRA_LOG_FORMAT="xml")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: MEDMITRA_LOG_FORMAT must be text or json\n"


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("some.logger", logging.WARNING, "", 1, message, arguments, None)


@pytest.mark.parametrize("message", ["two\nlines", "two\r\nlines", "\x1b[2Jcleared", "é", "\udcff"])
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=FORMATS)
def test_every_message_becomes_one_line_of_utf_8(formatter: logging.Formatter, message: str) -> None:
    line = formatter.format(record("%s", message))
    assert "\n" not in line
    assert "\r" not in line
    assert "\x1b" not in line
    line.encode(errors="backslashreplace")  # as stderr does


def test_a_record_that_cannot_be_formatted_does_not_stop_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LineHandler()
    handler.setFormatter(JsonFormatter())
    handler.emit(record("%d clients", "three"))
    handler.emit(record("%s clients", "four"))
    handler.flush()
    *error_report, line = capsys.readouterr().err.splitlines()
    assert error_report[0] == "--- Logging error ---"
    assert json.loads(line)["message"] == "four clients"


def test_a_json_line_has_five_keys() -> None:
    request_id.start("night-shift")
    entry = json.loads(JsonFormatter().format(record("%d clients", 3)))
    assert entry == {
        "time": entry["time"],
        "level": "WARNING",
        "logger": "some.logger",
        "request_id": "night-shift",
        "message": "3 clients",
    }
