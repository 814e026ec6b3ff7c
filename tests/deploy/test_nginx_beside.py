"""``deploy/nginx-beside.conf`` runs in the real nginx, before the real service and the product's backend.

A small HTTP server takes the place of the product's backend.
"""

import http.client
import json
import shlex
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.deploy.nginx import (
    ADDRESS,
    ALLOWED_ORIGIN,
    CASES_ADDRESS,
    GET,
    PATH,
    TARGET,
    Nginx,
    request,
    run_nginx,
)
from tests.deploy.parts import get, run_command
from tests.support.factories import DOCTOR, CasesDatabase, case, in_json
from tests.support.load import load
from tests.support.processes import Running, receive_all, wait_until
from tests.support.programs import tool
from tests.support.snippets import snippet

pytestmark = pytest.mark.deploy

MEGABYTE = 1_000_000
UPLOAD = bytes(range(250)) * (10 * MEGABYTE // 250)
CREATE_CASE = "POST /cases/create_case HTTP/1.1"


class Received(NamedTuple):
    """A request that the product's backend received."""

    method: str
    target: str
    headers: dict[str, str]
    body_hash: str


class Product(ThreadingHTTPServer):
    """The product's backend: it answers every request, and says so in the body."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[Received] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Product

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fields = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append(Received(self.command, self.path, fields, sha256(body).hexdigest()))
        content = b'{"cases":[],"from":"product"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815, the names of http.server

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@pytest.fixture
def product() -> Iterator[Product]:
    with Product() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def run_site(folder: Path, socket_path: str | Path, port: int, **replacements: str) -> Iterator[Nginx]:
    """Run nginx with the site, in front of the service and of a backend on this port."""
    backend = {"server 127.0.0.1:8000;": f"server 127.0.0.1:{port};"}
    with run_nginx(folder, socket_path, "nginx-beside.conf", **backend, **replacements) as nginx:
        yield nginx


@pytest.fixture
def nginx(service: Running, product: Product, folder: Path) -> Iterator[Nginx]:
    with run_site(folder, service.unix_socket, product.server_port) as nginx:
        yield nginx


def test_the_list_comes_from_the_service(nginx: Nginx, product: Product, database: CasesDatabase) -> None:
    stored = [case() for _ in range(3)]
    database.add(*stored)
    response, body = nginx.get(TARGET)
    assert (response.status, json.loads(body)) == (200, {"cases": [in_json(columns) for columns in stored]})
    assert product.received == []


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", f"/cases/cases/{DOCTOR}?x=%2F&y=1"),
        ("PUT", f"/cases/cases/{DOCTOR}"),
        ("DELETE", "/cases/file/a%2Fb%20c"),
        ("GET", f"{PATH}/"),
        ("POST", "/cases/upload"),
    ],
)
def test_every_other_path_goes_unchanged_to_the_product(
    nginx: Nginx, service: Running, product: Product, method: str, target: str
) -> None:
    own_fields = ("X-Request-ID: from-client", "X-Forwarded-For: 203.0.113.66", "X-Forwarded-Proto: http")
    status, fields, body = nginx.send(request(f"{method} {target} HTTP/1.1", *own_fields))
    assert (status, json.loads(body)["from"]) == (200, "product")
    (received,) = product.received
    assert (received.method, received.target) == (method, target)
    assert received.headers["x-forwarded-for"] == ADDRESS
    assert received.headers["x-forwarded-proto"] == "https"
    # The backend, the client and the access log have the same request id.
    assert received.headers["x-request-id"] == fields["X-Request-ID"] != "from-client"
    wait_until(nginx.access_log)
    (line,) = nginx.access_log()
    assert line.endswith(f" request {fields['X-Request-ID']}")
    assert fields["X-Request-ID"] not in service.printed


@pytest.mark.parametrize(
    "target",
    [
        f"/{TARGET}",
        TARGET.replace("/all", "//all"),
        TARGET.replace("/all", "%2Fall"),
        TARGET.replace("all", "%61ll"),
        f"/x/..{TARGET}",
    ],
)
def test_no_other_spelling_of_the_path_reaches_the_list_of_the_product(
    nginx: Nginx, service: Running, product: Product, target: str
) -> None:
    status, fields, body = nginx.send(request(f"GET {target} HTTP/1.1"))
    assert (status, json.loads(body)) == (404, {"detail": "no such path"})
    assert product.received == []
    assert fields["X-Request-ID"] not in service.printed


def test_the_product_receives_an_upload_of_10_mb_that_nginx_does_not_write_to_disk(
    nginx: Nginx, product: Product
) -> None:
    with nginx.connect() as client:
        client.sendall(request(CREATE_CASE, f"Content-Length: {len(UPLOAD)}") + UPLOAD)
        assert receive_all(client).startswith(b"HTTP/1.1 200 ")
    assert [received.body_hash for received in product.received] == [sha256(UPLOAD).hexdigest()]
    assert not list((nginx.folder / "bodies").iterdir())


def test_each_backend_has_its_own_limits(nginx: Nginx, product: Product) -> None:
    def status(line: str, length: int = 0, body: str = "") -> int:
        with nginx.connect() as client:
            client.sendall(request(line, f"Content-Length: {length}", body=body))
            return int(client.recv(1_024).split()[1])  # after a 413 nginx closes the connection 5 s later

    assert status(GET, 65_537) == 413
    assert status(CREATE_CASE, 65_537, "x" * 65_537) == 200
    assert status(CREATE_CASE, 64 * 1024 * 1024 + 1) == 413
    assert status(f"DELETE {TARGET} HTTP/1.1") == 405
    assert status("DELETE /cases/file/1 HTTP/1.1") == 200
    assert [received.method for received in product.received] == ["POST", "DELETE"]


def test_the_rate_limit_is_only_for_the_list(nginx: Nginx) -> None:
    def statuses(target: str) -> set[int]:
        with ThreadPoolExecutor(8) as pool:
            return set(pool.map(lambda _: nginx.get(target, CASES_ADDRESS)[0].status, range(200)))

    wait_until(lambda: statuses(TARGET) == {200, 429})
    assert statuses("/cases/cases/1") == {200}


def test_each_backend_can_fail_alone(service: Running, product: Product, folder: Path) -> None:
    with run_site(folder, service.unix_socket, 9) as nginx:  # no server listens on this port
        response, body = nginx.get("/cases/cases/1", Origin=ALLOWED_ORIGIN)
        assert response.status == 502
        assert json.loads(body)["detail"].endswith(f"(request id {response.headers['X-Request-ID']})")
        assert response.headers["Access-Control-Allow-Origin"] == ALLOWED_ORIGIN
        assert nginx.get(TARGET)[0].status == 200
    with run_site(folder, folder / "missing.sock", product.server_port) as nginx:
        assert nginx.get(TARGET)[0].status == 502
        assert nginx.get("/cases/cases/1")[0].status == 200


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (snippet("docs/beside-the-product.md", "Before you switch", "sh"), '{"cases":[{"case_id":'),
        (snippet("docs/beside-the-product.md", "Switch over and back", "sh", 3), '{"openapi":"3.1.0"'),
    ],
)
def test_the_service_can_be_read_from_its_socket(
    service: Running, database: CasesDatabase, commands: str, expected: str
) -> None:
    tool("curl")
    database.add(case())
    commands = commands.replace("curl", "curl -sS").replace(
        "/run/medmitra-cases/http.sock", service.unix_socket
    )
    assert run_command("bash", "-euc", f"DOCTOR={DOCTOR} TOKEN=x; {commands}").startswith(expected)


def switch(nginx: Nginx, commands: str) -> None:
    """Run the commands of docs/beside-the-product.md on this nginx."""
    reload = shlex.join(nginx.command("-s", "reload"))
    programs = f'nginx() {{ {shlex.join(nginx.command())} "$@"; }}\nsystemctl() {{ {reload}; }}\n'
    site = str(nginx.folder / "site.conf")
    assert "/etc/nginx/conf.d/nginx-beside.conf" in commands
    commands = commands.replace("/etc/nginx/conf.d/nginx-beside.conf", shlex.quote(site))
    run_command("bash", "-euc", programs + commands)


def test_switching_over_and_back_fails_no_request_and_breaks_no_upload(
    service: Running, product: Product, folder: Path, database: CasesDatabase
) -> None:
    database.add(case())
    replacements = {"default medmitra_cases;": "default product;", "rate=50r/s": "rate=10000r/s"}
    with run_site(folder, service.unix_socket, product.server_port, **replacements) as nginx:

        class Connection(http.client.HTTPConnection):
            """A connection for one request: one that was kept open may end when nginx reloads."""

            def connect(self) -> None:
                self.sock = nginx.connect()

            def request(self, *args: Any, **options: Any) -> None:
                self.close()
                super().request(*args, **options)

        def list_is_from(backend: str) -> bool:
            _, body = get(Connection("api.example"), TARGET)
            return ("from" in json.loads(body)) == (backend == "product")

        with (
            load(lambda: Connection("api.example"), TARGET, 4) as lists,
            load(lambda: Connection("api.example"), "/cases/cases/1", 2) as others,
            nginx.connect() as upload,
        ):
            upload.sendall(request(CREATE_CASE, f"Content-Length: {len(UPLOAD)}") + UPLOAD[:MEGABYTE])
            assert list_is_from("product")
            for commands, backend in (
                (snippet("docs/beside-the-product.md", "Switch over and back", "sh", 1), "service"),
                (snippet("docs/beside-the-product.md", "Switch over and back", "sh", 2), "product"),
            ) * 2:
                lists.wait_for(100)
                others.wait_for(20)
                switch(nginx, commands)
                wait_until(partial(list_is_from, backend))
            lists.wait_for(100)
            upload.sendall(UPLOAD[MEGABYTE:])
            assert receive_all(upload).startswith(b"HTTP/1.1 200 ")
        assert sha256(UPLOAD).hexdigest() in {received.body_hash for received in product.received}
        assert lists.failed == others.failed == []
