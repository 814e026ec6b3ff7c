"""The real server in a separate process: start, requests over a socket, end by signals, and the demo."""

import http.client
import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg2.extensions import parse_dsn

from medmitra_cases.testing.postgres import open_folder
from tests.support.factories import DOCTOR, CasesDatabase, case, in_json
from tests.support.paths import PUBLISHED, ROOT
from tests.support.processes import COMMAND, Running, environment, processes_below, run, running, wait_until

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    """The service as an operator starts it."""
    with running(
        COMMAND, "serve", "--listen", "127.0.0.1:0", DATABASE_URL=layout_database.service_dsn
    ) as server:
        yield server


def test_the_server_serves_the_published_example(server: Running, database: CasesDatabase) -> None:
    database.add(*json.loads(PUBLISHED.read_text())["cases"])
    response, body = server.get(CASES_URL, **{"Content-Type": "application/json"})
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == json.loads(PUBLISHED.read_text())
    assert response.headers["Content-Length"] == str(len(body))


def test_the_headers_do_not_name_the_server(server: Running) -> None:
    response, _ = server.get(CASES_URL)
    assert set(response.headers) == {
        *("Cache-Control", "Content-Length", "Content-Security-Policy", "Content-Type", "Date", "Vary"),
        *("Etag", "X-Content-Type-Options", "X-Request-Id"),  # waitress changes the letter case of names
    }


def test_head_has_the_content_length_of_get_and_no_body(server: Running, database: CasesDatabase) -> None:
    database.add(case())
    _, body = server.get(CASES_URL)
    response = server.send(f"HEAD {CASES_URL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, head_body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert f"Content-Length: {len(body)}".encode() in head
    assert head_body == b""


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(b"user_id=\xff\xfe", id="broken UTF-8"),
        pytest.param(b"user_id=%00", id="NUL"),
        pytest.param(b"user_id=" + b"a" * 30_000, id="30 kB"),
        pytest.param(b"&" * 10_000, id="separators"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_malformed_query_gets_a_400(server: Running, query: bytes) -> None:
    response = server.send(
        b"GET /cases/all_cases?" + query + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"Content-Type: application/json" in head
    assert list(json.loads(body)) == ["detail"]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET  / HTTP/1.1", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: many", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 32_768, b"431"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 500_000, b"431"),
        (b"GET /?" + b"a&" * 16_384 + b" HTTP/1.1", b"431"),
        (b"GET / HTTP/1.1" + b"\r\nX: x" * 101, b"431"),
        (b"GET / HTTP/1.1" + b"\r\n_:" * 8_000, b"431"),
        (b"POST / HTTP/1.1\r\nContent-Length: 65537", b"413"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip", b"501"),
        (b"GET http://[/ HTTP/1.1", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5_000, b"400"),
        (b"GET / HTTP/1.1\r\nAuthorization: Bearer s3cr3t-t0k3n\n", b"400"),
        (b"GET / HTTP/1.1\r\n Authorization: Bearer s3cr3t-t0k3n", b"400"),
        (b"s3cr3t-t0k3n / HTTP/1.1", b"400"),
    ],
)
def test_a_request_that_never_reaches_the_application_gets_the_same_error_body(
    server: Running, request_line: bytes, status: bytes
) -> None:
    response = server.send(request_line + b"\r\n\r\n")
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert b"Content-Type: application/json" in head
    assert b"Server:" not in head
    assert list(json.loads(body)) == ["detail"]
    assert b"s3cr3t" not in response


def test_a_head_that_never_reaches_the_application_has_no_body(server: Running) -> None:
    head, _, body = server.send(b"HEAD / HTTP/1.1\r\nContent-Length: 70000\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert body == b""


@pytest.mark.parametrize(
    "value", [":.", '"', "", ",", "x", "[", "1.2.3.4:80", "198.51.100.2, :.", "a" * 30_000, "\xff"]
)
@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded"])
def test_proxy_headers_from_a_client_cause_no_error(server: Running, name: str, value: str) -> None:
    assert server.get(CASES_URL, **{name: value})[0].status == 200


def test_concurrent_clients_get_their_own_cases(server: Running, database: CasesDatabase) -> None:
    doctors = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(32)]
    added = {doctor: [case(user_id=doctor) for _ in range(3)] for doctor in doctors}
    for cases in added.values():
        database.add(*cases)

    def fetch(doctor: str) -> list[object]:
        _, body = server.get(f"/cases/all_cases?user_id={doctor}")
        found: list[object] = json.loads(body)["cases"]
        return found

    with ThreadPoolExecutor(32) as pool:
        for doctor, found in zip(doctors, pool.map(fetch, doctors), strict=True):
            assert found == [in_json(columns) for columns in added[doctor]]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_server_cleanly(database: CasesDatabase, number: signal.Signals) -> None:
    with running(
        COMMAND, "serve", DATABASE_URL=database.service_dsn, MEDMITRA_LISTEN="127.0.0.1:0"
    ) as server:
        assert server.get(CASES_URL)[0].status == 200
        assert server.end(number) == 0
        assert "Traceback" not in server.printed


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
def test_a_hanging_query_does_not_prevent_the_end(database: CasesDatabase) -> None:
    # The owner has no statement timeout.
    settings = {"DATABASE_URL": database.owner_dsn, "MEDMITRA_DRAIN_SECONDS": "0.2"}
    with (
        running(COMMAND, "serve", "--listen", "127.0.0.1:0", **settings) as server,
        database.locked(),
        ThreadPoolExecutor(1) as pool,
    ):
        future = pool.submit(server.get, CASES_URL)
        wait_until(lambda: database.waiting)
        assert server.end() == 1
        assert isinstance(future.exception(), http.client.RemoteDisconnected | ConnectionResetError)
    server.wait_for("WARNING .*clients cut off before their responses were complete: 1")
    assert "Traceback" not in server.printed


def test_nohup_makes_the_server_ignore_sighup(database: CasesDatabase) -> None:
    serve = ("serve", "--listen", "127.0.0.1:0")
    with running("nohup", COMMAND, *serve, DATABASE_URL=database.service_dsn) as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.get(CASES_URL)[0].status == 200
        assert server.end() == 0


def test_the_service_connects_to_the_second_of_two_hosts(database: CasesDatabase) -> None:
    parts = parse_dsn(database.service_dsn)
    login = quote(parts["user"]) + (f":{quote(parts['password'])}" if "password" in parts else "")
    second = f"{quote(parts['host'], safe='')}:{parts.get('port', 5432)}"
    url = f"postgresql://{login}@127.0.0.1:1,{second}/{parts['dbname']}"
    with running(COMMAND, "serve", "--listen", "127.0.0.1:0", DATABASE_URL=url) as server:
        assert server.get(CASES_URL)[0].status == 200


def test_no_response_is_written_to_disk(server: Running, database: CasesDatabase) -> None:
    database.add_many([DOCTOR], 20_000)
    with socket.create_connection((server.host, server.port)) as slow:
        slow.sendall(f"GET {CASES_URL} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        # When the body begins, the rest of it waits in the server, because the client stops reading here.
        received = b""
        while b'{"cases":' not in received:
            received += slow.recv(100)
        files = [str(path.readlink()) for path in Path(f"/proc/{server.process.pid}/fd").iterdir()]
    assert files
    assert not [name for name in files if "deleted" in name or name.startswith(tempfile.gettempdir())]


def test_the_server_starts_without_its_database() -> None:
    url = "postgresql://reader:hunter2@127.0.0.1:1/clinic"
    listen = {"MEDMITRA_LISTEN": "127.0.0.1:0", "MEDMITRA_DATABASE_WAIT_SECONDS": "0"}
    with running(COMMAND, "serve", DATABASE_URL=url, **listen) as server:
        response, body = server.get(CASES_URL, **{"X-Request-ID": "nightshift-1"})
        assert response.status == 500
        assert json.loads(body) == {
            "detail": "Internal server error: database unavailable (request id nightshift-1)"
        }
        server.end()
    assert server.printed.count("request nightshift-1 failed: database unavailable") == 1
    assert server.printed.count("(OperationalError: ") == 1
    assert "Traceback" not in server.printed
    assert "hunter2" not in server.printed


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["--listen=127.0.0.1:0", "wsgi:app"], id="wsgi.py"),
        pytest.param(["--listen=127.0.0.1:0", "--call", "medmitra_cases:create_app"], id="factory"),
    ],
)
def test_another_wsgi_server_can_run_the_application(database: CasesDatabase, command: list[str]) -> None:
    database.add(case())
    serve = Path(sys.executable).with_name("waitress-serve")
    with running(serve, *command, DATABASE_URL=database.service_dsn, PYTHONPATH=str(ROOT)) as server:
        response, body = server.get(CASES_URL)
        assert response.status == 200
        assert len(json.loads(body)["cases"]) == 1


def test_the_error_without_a_database_url_says_what_to_do() -> None:
    ended = run("serve")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("Error: DATABASE_URL is not set")
    assert "medmitra-cases demo" in ended.stderr


@pytest.mark.parametrize(("command", "how"), [("serve", "MEDMITRA_LISTEN"), ("demo", "--listen")])
def test_the_error_for_an_address_in_use_says_how_to_take_another(
    command: str, how: str, folder: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as in_use:
        listen = f"127.0.0.1:{in_use.getsockname()[1]}"
        arguments, variables = ((how, listen), {}) if how == "--listen" else ((), {how: listen})
        variables |= {"DATABASE_URL": "host=127.0.0.1", "XDG_DATA_HOME": str(folder)}
        ended = run(command, *arguments, **variables)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"Error: cannot listen on {listen}: Address already in use"
        " (set another address with --listen HOST:PORT or MEDMITRA_LISTEN; port 0 takes a free port)\n"
    )


def test_the_error_for_an_unknown_host_is_one_line() -> None:
    ended = run("serve", "--listen", "no.such.host.invalid:1", DATABASE_URL="host=127.0.0.1")
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: cannot listen on no.such.host.invalid:1: no such host (")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_demo_serves_the_published_example_and_leaves_nothing_running(
    folder: Path, number: signal.Signals
) -> None:
    accounts = pwd.getpwall()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents, Path.home())]
    for _ in range(2):
        defaults = {"XDG_DATA_HOME": str(folder), "MEDMITRA_ADMIN_LISTEN": ""}
        with running(COMMAND, "demo", "--listen", "127.0.0.1:0", **defaults) as demo:
            response, body = demo.get(CASES_URL)
            assert response.status == 200
            assert json.loads(body) == json.loads(PUBLISHED.read_text())
            assert processes_below(folder)
            assert demo.end(number) == 0
        demo.wait_for(re.escape(f'Try: curl "http://127.0.0.1:{demo.port}{CASES_URL}"'))
        demo.wait_for(f"Documentation: http://127.0.0.1:{demo.port}/docs")
        assert "probes and metrics" not in demo.printed
        assert not processes_below(folder)
    assert pwd.getpwall() == accounts
    assert modes == [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents, Path.home())]


@pytest.fixture(scope="module")
def demo_folder() -> Iterator[Path]:
    """The data folder of several demos. Only the first one creates the database."""
    with open_folder() as folder:
        yield folder


def test_the_demo_prints_a_curl_line_that_works_with_tokens(demo_folder: Path) -> None:
    tokens = {
        "XDG_DATA_HOME": str(demo_folder),
        "MEDMITRA_JWT_SECRET": "test-secret-of-thirty-two-bytes-or-more",
    }
    with running(COMMAND, "demo", "--listen", "127.0.0.1:0", **tokens) as demo:
        _, url, name, value = demo.wait_for(r'curl "(http://\S+(/cases/\S+))" -H "(.+): (.+)"').groups()
        response, body = demo.get(url, **{name: value})
        assert (response.status, json.loads(body)) == (200, json.loads(PUBLISHED.read_text()))
        assert demo.get(url)[0].status == 401


def test_the_demo_prints_a_placeholder_if_only_the_issuer_can_make_tokens(demo_folder: Path) -> None:
    tokens = {"XDG_DATA_HOME": str(demo_folder), "MEDMITRA_JWKS_URL": "https://keys.example/keys"}
    with running(COMMAND, "demo", "--listen", "127.0.0.1:0", **tokens) as demo:
        demo.wait_for(r'curl "http://\S+" -H "Authorization: Bearer \$TOKEN"')


def test_a_second_demo_does_not_disturb_the_first_one(demo_folder: Path) -> None:
    with running(COMMAND, "demo", "--listen", "127.0.0.1:0", XDG_DATA_HOME=str(demo_folder)) as first:
        second = run("demo", "--listen", "127.0.0.1:0", XDG_DATA_HOME=str(demo_folder))
        assert second.returncode == 1
        assert second.stderr == (
            f"Error: another process already runs a Postgres in {demo_folder}/medmitra-cases/demo\n"
        )
        assert first.get(CASES_URL)[0].status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
def test_the_demo_of_root_keeps_the_mode_of_an_existing_folder(folder: Path) -> None:
    folder.chmod(0o700)
    ended = run("demo", XDG_DATA_HOME=str(folder))
    assert ended.returncode == 1
    assert "Permission denied" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_of_the_demo_leaves_nothing_running(
    folder: Path, number: signal.Signals
) -> None:
    # The signal arrives once during initdb, which takes longest, and once during the start of Postgres.
    for file_prefix in ("initdb", "postgres.log"):
        with subprocess.Popen(
            [str(COMMAND), "demo", "--listen", "127.0.0.1:0"],
            env=environment(XDG_DATA_HOME=str(folder)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as demo:
            while not list(folder.glob(f"medmitra-cases/demo/{file_prefix}*")):
                assert demo.poll() is None
            demo.send_signal(number)
        assert demo.returncode == 0
        assert not processes_below(folder)


def test_the_demo_works_under_a_strict_umask(folder: Path) -> None:
    command = ["sh", "-c", f'umask 077; exec "{COMMAND}" demo --listen 127.0.0.1:0']
    with running(*command, XDG_DATA_HOME=str(folder / "deeper")) as demo:
        assert demo.get(CASES_URL)[0].status == 200


def test_the_demo_ignores_the_environment_of_libpq(demo_folder: Path) -> None:
    libpq = {"PGHOSTADDR": "127.0.0.1", "PGPORT": "1", "PGUSER": "x", "PGOPTIONS": "-c search_path=x"}
    command = (COMMAND, "demo", "--listen", "127.0.0.1:0")
    with running(*command, XDG_DATA_HOME=str(demo_folder), **libpq) as demo:
        assert demo.get(CASES_URL)[0].status == 200


def test_the_demo_checks_its_settings_before_it_starts_anything(folder: Path) -> None:
    ended = run("demo", MEDMITRA_LISTEN="8000", XDG_DATA_HOME=str(folder))
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: MEDMITRA_LISTEN must be HOST:PORT")
    assert not list(folder.iterdir())
