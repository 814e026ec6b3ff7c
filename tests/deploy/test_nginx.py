"""``deploy/nginx.conf`` in the real nginx, over TLS, in front of the real service on a Unix socket."""

import gzip
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medmitra_cases.testing.postgres import open_folder
from tests.deploy.parts import adapted, call, get
from tests.support.factories import DOCTOR, CasesDatabase, case, in_json
from tests.support.processes import COMMAND, TIMEOUT_SECONDS, Running, running_on, wait_until
from tests.support.programs import accepts_connections, background, free_port, tool

pytestmark = pytest.mark.deploy

URL = "/cases/all_cases"
ASKED = f"{URL}?user_id={DOCTOR}"
PAGE = "https://app.example"
# nginx refuses to be asked for much from one address; each test that asks much has one of its own.
ADDRESS, HAMMERING_ADDRESS, READING_ADDRESS = "127.0.0.5", "127.0.0.6", "127.0.0.7"

# Stands in for the distribution's nginx.conf. The folders of temporary files get folders in them with their
# first file, and those stay.
MAIN = """
user nobody nogroup;
pid nginx.pid;
events {}
http {
    proxy_temp_path proxied 1;
    client_body_temp_path bodies 1;
    access_log off;
    include site.conf;
}
"""


class Nginx:
    """A running nginx, and how to ask it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._trust = ssl.create_default_context(cafile=folder / "api.example.pem")

    def connect(self, address: str = ADDRESS, receive_buffer: int = 0) -> ssl.SSLSocket:
        plain = socket.socket()
        plain.settimeout(TIMEOUT_SECONDS)
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.bind((address, 0))
        plain.connect(("127.0.0.1", self.port))
        return self._trust.wrap_socket(plain, server_hostname="api.example")

    def get(
        self, target: str, address: str = ADDRESS, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("api.example")
        connection.sock = self.connect(address)
        return get(connection, target, **headers)

    def send(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes as they are; returns status, header fields and body."""
        with self.connect() as connection:
            connection.sendall(raw)
            answer = b""
            while received := connection.recv(65_536):
                answer += received
        head, _, body = answer.decode().partition("\r\n\r\n")
        status, *fields = head.split("\r\n")
        return int(status.split()[1]), dict(field.split(": ", 1) for field in fields), body.encode()

    def log(self) -> list[str]:
        return (self.folder / "access.log").read_text().splitlines()


@contextmanager
def nginx(folder: Path, service: Path, **changes: str) -> Iterator[Nginx]:
    """Run nginx with the site; its certificate is made up."""
    port = free_port()
    certificate, key = folder / "api.example.pem", folder / "api.example.key"
    call(
        *(tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "1", "-subj", "/CN=api.example", "-addext", "subjectAltName=DNS:api.example"),
        *("-keyout", key, "-out", certificate),
    )
    replaced = {
        "unix:/run/medmitra-cases/http.sock": f"unix:{service}",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "listen [::]:443 ssl;": "",
        "/etc/nginx/tls/api.example.pem": str(certificate),
        "/etc/nginx/tls/api.example.key": str(key),
        "/var/log/nginx/medmitra-cases.access.log": str(folder / "access.log"),
        **changes,
    }
    (folder / "site.conf").write_text(adapted("nginx.conf", replaced))
    (folder / "main.conf").write_text(MAIN)
    command = (
        tool("nginx"),
        "-p",
        folder,
        "-c",
        "main.conf",
        "-e",
        folder / "error.log",
        "-g",
        "daemon off;",
    )
    with background(*command, is_ready=lambda: accepts_connections(port), log=folder / "start.log"):
        yield Nginx(folder, port)
    assert "emerg" not in (folder / "error.log").read_text()


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        path.chmod(0o666)  # nginx's workers are nobody here; the group's say is tested with systemd
        made.listen()
        yield made


@pytest.fixture(scope="module")
def served(clinic: CasesDatabase) -> Iterator[tuple[Running, Path]]:
    """The service, and its Unix socket."""
    with (
        open_folder() as folder,
        listening(folder / "http.sock") as handed_over,
        running_on(handed_over, COMMAND, "serve", DATABASE_URL=clinic.service_dsn) as service,
    ):
        yield service, folder / "http.sock"


@pytest.fixture
def service(served: tuple[Running, Path]) -> Running:
    return served[0]


@pytest.fixture
def front(served: tuple[Running, Path], folder: Path) -> Iterator[Nginx]:
    with nginx(folder, served[1]) as front:
        yield front


def audited(service: Running, request_id: str) -> dict[str, Any]:
    service.wait_for(rf'"request_id":"{request_id}"')
    (line,) = (line for line in service.printed.splitlines() if f'"request_id":"{request_id}"' in line)
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_a_doctor_gets_the_cases_and_the_audit_the_doctor(
    front: Nginx, service: Running, cases: CasesDatabase
) -> None:
    mine = [case() for _ in range(3)]
    cases.add(*mine)
    response, body = front.get(ASKED, **{"X-Forwarded-For": "203.0.113.66", "X-Request-ID": "chosen"})
    assert (response.status, json.loads(body)) == (200, {"cases": [in_json(each) for each in mine]})
    assert response.headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]
    (request_id,) = response.headers.get_all("X-Request-ID", [])
    entry = audited(service, request_id)
    assert (entry["client"], entry["user_id"], entry["cases"]) == (ADDRESS, DOCTOR, 3)
    assert "chosen" not in service.printed

    wait_until(front.log)
    (line,) = front.log()
    assert f' {ADDRESS} GET "{URL}" 200 {len(body)} bytes ' in line
    assert line.endswith(f" request {request_id}")
    assert DOCTOR not in line


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_other_methods_that_the_service_has(front: Nginx, method: str) -> None:
    status, _, _ = front.send(f"{method} {ASKED} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status == 200


def request(line: str, *fields: str, body: str = "") -> bytes:
    return "\r\n".join([line, "Host: api.example", "Connection: close", *fields, "", body]).encode()


REFUSED = {
    "another path": (request("GET /x HTTP/1.1"), 404),
    "slashes before an asset": (request("GET /docs//docs.css HTTP/1.1"), 404),
    "page in disguise": (request("GET /%64ocs HTTP/1.1"), 404),
    "detour to the page": (request("GET /x/../docs HTTP/1.1"), 404),
    "POST to the page": (request("POST /docs HTTP/1.1", "Content-Length: 2", body="{}"), 405),
    "the admin's path": (request("GET /metrics HTTP/1.1"), 404),
    "the errors' path": (request("GET /.error HTTP/1.1"), 404),
    "two slashes": (request(f"GET /{ASKED} HTTP/1.1"), 404),
    "slashes within": (request(f"GET {ASKED.replace('/all', '//all')} HTTP/1.1"), 404),
    "slash at the end": (request(f"GET {URL}/ HTTP/1.1"), 404),
    "slash in disguise": (request(f"GET {ASKED.replace('/all', '%2Fall')} HTTP/1.1"), 404),
    "letter in disguise": (request(f"GET {ASKED.replace('all', '%61ll')} HTTP/1.1"), 404),
    "detour": (request(f"GET /x/..{ASKED} HTTP/1.1"), 404),
    "POST": (request(f"POST {ASKED} HTTP/1.1", "Content-Length: 2", body="{}"), 405),
    "DELETE": (request(f"DELETE {ASKED} HTTP/1.1"), 405),
    "TRACE": (request(f"TRACE {ASKED} HTTP/1.1"), 405),
    "body": (request(f"GET {ASKED} HTTP/1.1", "Content-Length: 65537"), 413),
    "URL": (request(f"GET {ASKED}&x={'x' * 20_000} HTTP/1.1"), 414),
    "header": (request(f"GET {ASKED} HTTP/1.1", f"X: {'x' * 20_000}"), 431),
    "two lengths": (request(f"GET {ASKED} HTTP/1.1", "Content-Length: 1", "Content-Length: 2"), 400),
    "length and chunks": (
        request(f"GET {ASKED} HTTP/1.1", "Content-Length: 3", "Transfer-Encoding: chunked", body="0\r\n\r\n"),
        400,
    ),
    "no HTTP": (b"nonsense\r\n\r\n", 400),
    "encoding": (request(f"GET {ASKED} HTTP/1.1", "Transfer-Encoding: gzip"), 501),
}


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_never_reaches_the_service(
    front: Nginx, service: Running, raw: bytes, status: int
) -> None:
    found, fields, body = front.send(raw)
    assert found == status
    assert fields["Content-Type"] == "application/json"
    assert fields["Server"] == "nginx"
    assert list(json.loads(body)) == ["detail"]
    assert ("Allow" in fields) == (status == 405)
    assert fields["X-Request-ID"] not in service.printed


def test_a_page_may_read_what_nginx_says(front: Nginx) -> None:
    allowed = [front.get("/x", Origin=origin)[0].headers for origin in (PAGE, "https://other.example")]
    assert [headers["Access-Control-Allow-Origin"] for headers in allowed] == [PAGE, None]


@pytest.mark.parametrize(
    "target", ["/", "/docs", "/openapi.json", "/docs/docs.js", "/docs/swagger-ui-bundle.js"]
)
def test_the_documentation_is_there_and_short(front: Nginx, target: str) -> None:
    plain, body = front.get(target)
    assert plain.status == 200
    assert plain.headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]
    assert len(plain.headers.get_all("Content-Security-Policy", [])) == 1
    short, compressed = front.get(target, **{"Accept-Encoding": "gzip"})
    assert gzip.decompress(compressed) == body
    again = front.get(target, **{"If-None-Match": short.headers["ETag"]})
    assert (again[0].status, again[1]) == (304, b"")


def test_a_person_is_sent_to_the_page(front: Nginx) -> None:
    response, _ = front.get("/", Accept="text/html")
    assert (response.status, response.headers["Location"]) == (302, "docs")


def test_a_long_token_and_a_small_body_get_through(front: Nginx) -> None:
    token = "x" * 8_192
    fields = (f"Authorization: Bearer {token}", "Content-Length: 65000")
    status, _, _ = front.send(request(f"GET {ASKED} HTTP/1.1", *fields, body="x" * 65_000))
    assert status == 200
    assert not list((front.folder / "bodies").iterdir())


def test_who_hammers_gets_429_and_others_do_not(front: Nginx) -> None:
    def ask(_: int) -> tuple[int, bytes]:
        response, body = front.get(ASKED, HAMMERING_ADDRESS)
        return response.status, body

    refused: list[bytes] = []

    def hammered() -> bool:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(100)))
        assert {status for status, _ in answers} <= {200, 429}
        refused.extend(body for status, body in answers if status == 429)
        return bool(refused)

    wait_until(hammered)
    assert json.loads(refused[0]) == {"detail": "too many requests from this address"}
    assert front.get(ASKED)[0].status == 200


def test_who_reads_much_of_the_documentation_still_gets_cases(front: Nginx) -> None:
    def refused() -> bool:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: front.get("/docs", READING_ADDRESS), range(50)))
        return 429 in {response.status for response, _ in answers}

    wait_until(refused)
    assert front.get(ASKED, READING_ADDRESS)[0].status == 200


def test_a_long_answer_to_a_slow_reader_is_in_no_file(
    front: Nginx, service: Running, cases: CasesDatabase
) -> None:
    cases.add(*(case(case_summary="x" * 100_000) for _ in range(80)))
    with front.connect(receive_buffer=4_096) as slow:
        slow.sendall(request(f"GET {ASKED} HTTP/1.1"))
        answer = slow.recv(1_024)
        request_id = answer.decode().partition("X-Request-Id: ")[2].split()[0]
        assert audited(service, request_id)["cases"] == 80  # the service has handed over all of it
        while received := slow.recv(65_536):
            answer += received
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["cases"]) == 80
    assert not list((front.folder / "proxied").iterdir())


@pytest.mark.parametrize(
    ("begun", "timeout"),
    [
        (b"GET / HTTP/1.1\r\nX: ", "client_header_timeout"),
        (request(f"GET {ASKED} HTTP/1.1", "Content-Length: 9"), "client_body_timeout"),
    ],
    ids=["header", "body"],
)
def test_slow_senders_are_shown_the_door_and_the_service_does_not_see_them(
    served: tuple[Running, Path], folder: Path, begun: bytes, timeout: str
) -> None:
    service, path = served
    before = service.printed
    with (
        nginx(folder, path, **{f"{timeout} 10s;": f"{timeout} 1s;"}) as front,
        front.connect() as drip,
    ):
        drip.sendall(begun)
        wait_until(drips_out(drip, b"x" if timeout == "client_header_timeout" else b""))
    assert service.printed == before


def drips_out(drip: ssl.SSLSocket, drop: bytes) -> Callable[[], bool]:
    """Sends a drop ten times a second; tells whether the other side has closed."""
    drip.settimeout(0.1)

    def closed() -> bool:
        try:
            if drop:
                drip.sendall(drop)
            return drip.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    return closed


def test_a_service_that_is_not_there(folder: Path) -> None:
    with nginx(folder, folder / "nobody.sock") as front:
        response, body = front.get(ASKED, Origin=PAGE)
    assert response.status == 502
    assert json.loads(body) == {
        "detail": "Internal server error: the service does not answer"
        f" (request id {response.headers['X-Request-ID']})"
    }
    assert response.headers["Access-Control-Allow-Origin"] == PAGE


def test_a_service_that_says_nothing(folder: Path) -> None:
    path = folder / "silent.sock"
    with (
        listening(path),
        nginx(folder, path, **{"proxy_read_timeout 30s;": "proxy_read_timeout 1s;"}) as front,
    ):
        response, body = front.get(ASKED)
    assert (response.status, list(json.loads(body))) == (504, ["detail"])
