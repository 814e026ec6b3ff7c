"""``deploy/nginx.conf`` runs in the real nginx, with TLS, in front of the real service on a Unix socket."""

import gzip
import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medmitra_cases.web.headers import POLICY as POLICY_FIELD
from tests.deploy.nginx import (
    ADDRESS,
    ALLOWED_ORIGIN,
    CASES_ADDRESS,
    DOCS_ADDRESS,
    GET,
    PATH,
    TARGET,
    Nginx,
    request,
    run_nginx,
    unix_listener,
)
from tests.support.factories import DOCTOR, CasesDatabase, case, in_json
from tests.support.processes import Running, receive_all, wait_until

pytestmark = pytest.mark.deploy

_, POLICY = POLICY_FIELD
GZIP = {"Accept-Encoding": "gzip"}


@pytest.fixture
def nginx(service: Running, folder: Path) -> Iterator[Nginx]:
    with run_nginx(folder, service.unix_socket) as nginx:
        yield nginx


def audit_entry(service: Running, request_id: str) -> dict[str, Any]:
    service.wait_for(rf'"request_id":"{request_id}"')
    (line,) = (line for line in service.printed.splitlines() if f'"request_id":"{request_id}"' in line)
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_a_doctor_gets_cases_and_both_logs_record_the_request(
    nginx: Nginx, service: Running, database: CasesDatabase
) -> None:
    stored = [case() for _ in range(3)]
    database.add(*stored)
    response, body = nginx.get(TARGET, **{"X-Forwarded-For": "203.0.113.66", "X-Request-ID": "from-client"})
    assert (response.status, json.loads(body)) == (200, {"cases": [in_json(columns) for columns in stored]})
    assert response.headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]
    (request_id,) = response.headers.get_all("X-Request-ID", [])
    entry = audit_entry(service, request_id)
    assert (entry["client"], entry["user_id"], entry["cases"]) == (ADDRESS, DOCTOR, 3)
    assert "from-client" not in service.printed

    wait_until(nginx.access_log)
    (line,) = nginx.access_log()
    assert f' {ADDRESS} GET "{PATH}" 200 {len(body)} bytes ' in line
    assert line.endswith(f" request {request_id}")
    assert DOCTOR not in line


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_nginx_forwards_other_methods_of_the_service(nginx: Nginx, method: str) -> None:
    status, _, _ = nginx.send(f"{method} {TARGET} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status == 200


REFUSED = {
    "unknown path": (request("GET /x HTTP/1.1"), 404),
    "two slashes before an asset": (request("GET /docs//docs.css HTTP/1.1"), 404),
    "percent-encoded page": (request("GET /%64ocs HTTP/1.1"), 404),
    "dot segments before the page": (request("GET /x/../docs HTTP/1.1"), 404),
    "POST to the page": (request("POST /docs HTTP/1.1", "Content-Length: 2", body="{}"), 405),
    "admin path": (request("GET /metrics HTTP/1.1"), 404),
    "internal error path": (request("GET /.error HTTP/1.1"), 404),
    "two leading slashes": (request(f"GET /{TARGET} HTTP/1.1"), 404),
    "two slashes inside the path": (request(f"GET {TARGET.replace('/all', '//all')} HTTP/1.1"), 404),
    "trailing slash": (request(f"GET {PATH}/ HTTP/1.1"), 404),
    "percent-encoded slash": (request(f"GET {TARGET.replace('/all', '%2Fall')} HTTP/1.1"), 404),
    "percent-encoded letter": (request(f"GET {TARGET.replace('all', '%61ll')} HTTP/1.1"), 404),
    "dot segments": (request(f"GET /x/..{TARGET} HTTP/1.1"), 404),
    "POST": (request(f"POST {TARGET} HTTP/1.1", "Content-Length: 2", body="{}"), 405),
    "DELETE": (request(f"DELETE {TARGET} HTTP/1.1"), 405),
    "TRACE": (request(f"TRACE {TARGET} HTTP/1.1"), 405),
    "body too long": (request(GET, "Content-Length: 65537"), 413),
    "URL too long": (request(f"GET {TARGET}&x={'x' * 20_000} HTTP/1.1"), 414),
    "header too long": (request(GET, f"X: {'x' * 20_000}"), 431),
    "two Content-Length fields": (request(GET, "Content-Length: 1", "Content-Length: 2"), 400),
    "Content-Length and chunked": (
        request(GET, "Content-Length: 3", "Transfer-Encoding: chunked", body="0\r\n\r\n"),
        400,
    ),
    "not HTTP": (b"nonsense\r\n\r\n", 400),
    "Transfer-Encoding gzip": (request(GET, "Transfer-Encoding: gzip"), 501),
}


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED)
def test_a_refused_request_never_reaches_the_service(
    nginx: Nginx, service: Running, raw: bytes, status: int
) -> None:
    received_status, fields, body = nginx.send(raw)
    assert received_status == status
    assert fields["Content-Type"] == "application/json"
    assert fields["Server"] == "nginx"
    assert list(json.loads(body)) == ["detail"]
    assert ("Allow" in fields) == (status == 405)
    assert fields["Content-Security-Policy"] == POLICY
    assert "Retry-After" not in fields
    assert fields["X-Request-ID"] not in service.printed


def test_only_an_allowed_origin_may_read_errors_of_nginx(nginx: Nginx) -> None:
    for origin, allowed_origin in ((ALLOWED_ORIGIN, ALLOWED_ORIGIN), ("https://other.example", None)):
        response, _ = nginx.get("/x", Origin=origin)
        assert response.headers["Access-Control-Allow-Origin"] == allowed_origin


@pytest.mark.parametrize(
    "target", ["/", "/docs", "/openapi.json", "/docs/docs.js", "/docs/swagger-ui-bundle.js"]
)
def test_nginx_compresses_the_documentation_and_forwards_its_etag(nginx: Nginx, target: str) -> None:
    plain, body = nginx.get(target)
    assert plain.status == 200
    assert plain.headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]
    assert len(plain.headers.get_all("Content-Security-Policy", [])) == 1
    gzipped, compressed_body = nginx.get(target, **GZIP)
    is_long = len(body) >= 1_024
    assert gzipped.headers["Content-Encoding"] == ("gzip" if is_long else None)
    assert (gzip.decompress(compressed_body) if is_long else compressed_body) == body
    not_modified, empty = nginx.get(target, **{"If-None-Match": gzipped.headers["ETag"]})
    assert (not_modified.status, empty) == (304, b"")


@pytest.mark.parametrize("count", [1_000, 3_000], ids=["whole", "stream"])
def test_nginx_compresses_cases_and_forwards_their_weak_etag(
    nginx: Nginx, database: CasesDatabase, count: int
) -> None:
    database.add_many([DOCTOR], count)
    plain, body = nginx.get(TARGET)
    gzipped, compressed_body = nginx.get(TARGET, **GZIP, Via="1.1 load-balancer")
    assert "Content-Encoding" not in plain.headers
    assert gzipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(compressed_body) == body
    assert len(compressed_body) < len(body) / 5
    for response in (plain, gzipped):
        assert response.headers.get_all("Vary") == ["Accept-Encoding", "Authorization"]
    assert gzipped.headers["ETag"] == f"W/{plain.headers['ETag']}"
    not_modified, empty = nginx.get(TARGET, **GZIP, **{"If-None-Match": gzipped.headers["ETag"]})
    assert (not_modified.status, empty) == (304, b"")


def test_nginx_compresses_no_short_list_and_no_error(nginx: Nginx, database: CasesDatabase) -> None:
    database.add(case())
    for target in (TARGET, PATH, "/x"):
        assert "Content-Encoding" not in nginx.get(target, **GZIP)[0].headers


@pytest.mark.parametrize("headers", [{}, GZIP], ids=["plain", "gzip"])
def test_an_interrupted_list_does_not_look_complete(folder: Path, headers: dict[str, str]) -> None:
    path = folder / "interrupted.sock"
    with unix_listener(path) as listener, run_nginx(folder, path) as nginx, ThreadPoolExecutor(1) as pool:
        request = pool.submit(nginx.get, TARGET, **headers)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(65_536)
            chunk = b"x" * 4_096
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"1000\r\n" + chunk + b"\r\n"
            )
        with pytest.raises(http.client.IncompleteRead):
            request.result()


def test_a_browser_is_redirected_to_the_documentation(nginx: Nginx) -> None:
    response, _ = nginx.get("/", Accept="text/html")
    assert (response.status, response.headers["Location"]) == (302, "docs")


def test_nginx_forwards_a_long_token_and_a_small_body(nginx: Nginx) -> None:
    token = "x" * 8_192
    fields = (f"Authorization: Bearer {token}", "Content-Length: 65000")
    status, _, _ = nginx.send(request(GET, *fields, body="x" * 65_000))
    assert status == 200
    assert not list((nginx.folder / "bodies").iterdir())


def test_an_address_over_the_rate_limit_gets_429_and_others_do_not(nginx: Nginx) -> None:
    def send(_: int) -> tuple[http.client.HTTPResponse, bytes]:
        return nginx.get(TARGET, CASES_ADDRESS, Origin=ALLOWED_ORIGIN)

    refusals: list[tuple[http.client.HTTPResponse, bytes]] = []

    def limit_is_reached() -> bool:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(send, range(100)))
        assert {response.status for response, _ in results} <= {200, 429}
        refusals.extend((response, body) for response, body in results if response.status == 429)
        return bool(refusals)

    wait_until(limit_is_reached)
    response, body = refusals[0]
    assert json.loads(body) == {"detail": "too many requests from this address"}
    assert response.headers["Retry-After"] == "1"
    assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
    assert response.headers["Content-Security-Policy"] == POLICY
    assert nginx.get(TARGET)[0].status == 200


def test_the_rate_limit_of_the_documentation_does_not_apply_to_cases(nginx: Nginx) -> None:
    def limit_is_reached() -> bool:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: nginx.get("/docs", DOCS_ADDRESS), range(50)))
        return 429 in {response.status for response, _ in results}

    wait_until(limit_is_reached)
    assert nginx.get(TARGET, DOCS_ADDRESS)[0].status == 200


def test_nginx_writes_no_response_to_disk_for_a_slow_client(
    nginx: Nginx, service: Running, database: CasesDatabase
) -> None:
    # More than nginx and the kernel buffer, and less than the service streams.
    database.add(*(case(case_summary="x" * 100_000) for _ in range(20)))
    with nginx.connect(receive_buffer=4_096) as slow_client:
        slow_client.sendall(request(GET))
        received = slow_client.recv(1_024)
        request_id = received.decode().partition("X-Request-Id: ")[2].split()[0]
        assert audit_entry(service, request_id)["cases"] == 20  # the service has sent everything to nginx
        received += receive_all(slow_client)
    assert len(json.loads(received.partition(b"\r\n\r\n")[2])["cases"]) == 20
    assert not list((nginx.folder / "proxied").iterdir())


@pytest.mark.parametrize(
    ("partial_request", "timeout"),
    [
        (b"GET / HTTP/1.1\r\nX: ", "client_header_timeout"),
        (request(GET, "Content-Length: 9"), "client_body_timeout"),
    ],
    ids=["header", "body"],
)
def test_nginx_closes_a_slow_client_and_the_service_does_not_see_it(
    service: Running, folder: Path, partial_request: bytes, timeout: str
) -> None:
    before = service.printed
    with (
        run_nginx(folder, service.unix_socket, **{f"{timeout} 10s;": f"{timeout} 1s;"}) as nginx,
        nginx.connect() as slow_client,
    ):
        slow_client.sendall(partial_request)
        wait_until(closes(slow_client, b"x" if timeout == "client_header_timeout" else b""))
    assert service.printed == before


def closes(connection: ssl.SSLSocket, content: bytes) -> Callable[[], bool]:
    """Return a function that sends the content and returns whether nginx closes the connection in 0.1 s."""
    connection.settimeout(0.1)

    def is_closed() -> bool:
        try:
            if content:
                connection.sendall(content)
            return connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    return is_closed


def test_nginx_sends_502_if_the_service_is_down(folder: Path) -> None:
    with run_nginx(folder, folder / "missing.sock") as nginx:
        response, body = nginx.get(TARGET, Origin=ALLOWED_ORIGIN)
    assert response.status == 502
    assert json.loads(body) == {
        "detail": "Internal server error: the service does not answer"
        f" (request id {response.headers['X-Request-ID']})"
    }
    assert response.headers["Access-Control-Allow-Origin"] == ALLOWED_ORIGIN


def test_nginx_sends_504_if_the_service_does_not_respond(folder: Path) -> None:
    path = folder / "silent.sock"
    with (
        unix_listener(path),
        run_nginx(folder, path, **{"proxy_read_timeout 30s;": "proxy_read_timeout 1s;"}) as nginx,
    ):
        response, body = nginx.get(TARGET)
    assert (response.status, list(json.loads(body))) == (504, ["detail"])
