"""Bytes that begin no request, requests in pieces, and the header field Connection."""

import json
import re
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.support.factories import DOCTOR, CasesDatabase, case
from tests.support.processes import Running, receive_all, serve

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"
REQUEST = f"GET {CASES_URL} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    """The service."""
    with serve(layout_database.service_dsn) as server:
        yield server


ORIGIN = "https://app.example"
REFUSED = {
    "a long field": (431, f"GET {CASES_URL} HTTP/1.1\r\nOrigin: {{}}\r\nX: {'x' * 40_000}\r\n\r\n"),
    "many fields": (431, f"GET {CASES_URL} HTTP/1.1\r\nOrigin: {{}}\r\n" + "X: x\r\n" * 200 + "\r\n"),
    "a large body": (413, f"GET {CASES_URL} HTTP/1.1\r\nOrigin: {{}}\r\nContent-Length: 100000\r\n\r\n"),
    "an unknown coding": (501, f"GET {CASES_URL} HTTP/1.1\r\nOrigin: {{}}\r\nTransfer-Encoding: x\r\n\r\n"),
    "an unreadable field": (400, f"GET {CASES_URL} HTTP/1.1\r\nOrigin: {{}}\r\nX : x\r\n\r\n"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pages_can_read_why_the_server_refused_their_request(
    layout_database: CasesDatabase, name: str
) -> None:
    status, text = REFUSED[name]
    with serve(layout_database.service_dsn, MEDMITRA_CORS_ORIGINS=ORIGIN) as server:
        responses = [
            server.send(text.format(origin).encode()).decode() for origin in (ORIGIN, "https://b.example")
        ]
    for response in responses:
        assert response.startswith((f"HTTP/1.1 {status} ", f"HTTP/1.0 {status} "))
        assert "\r\nVary: Origin\r\n" in response
    assert f"\r\nAccess-Control-Allow-Origin: {ORIGIN}\r\n" in responses[0]
    assert (
        "\r\nAccess-Control-Expose-Headers: ETag, Link, Preference-Applied, X-Request-ID, X-Total-Count\r\n"
        in responses[0]
    )
    assert "Access-Control" not in responses[1]


def client_hello() -> bytes:
    """The first bytes of a TLS client."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(received, sent, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("before", [b"", REQUEST], ids=["first", "after a request"])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(client_hello(), id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"PRI * HTTP/2.0\r\n", id="a part of HTTP/2"),
        pytest.param(b"SSH-2.0-s3cr3t\r\n", id="SSH"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 51234 8000\r\n", id="PROXY 1"),
        pytest.param(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", id="PROXY 2"),
        pytest.param(b"*1\r\n$4\r\nPING\r\n", id="Redis"),
        pytest.param(b"EHLO s3cr3t.example\r\n", id="SMTP"),
        pytest.param(b"\0\0\0\x08\x04\xd2\x16\x2f", id="Postgres"),
        pytest.param(b"\r\n\x80", id="a line break and a byte"),
        pytest.param(b"s3cr3t", id="lower case"),
        pytest.param(b"S3CR3T" * 6, id="a long word"),
        pytest.param(b"GET /s3cr3t\r\n", id="HTTP/0.9"),
        pytest.param(b"GET /s3cr3t HTTP/1.1\nHost: x\n\n", id="line feeds"),
        pytest.param(b"GET\t/s3cr3t HTTP/1.1\r\n", id="a tab"),
        pytest.param(b"GET /s3cr3t HTTP/1.1\0\r\n", id="NUL"),
    ],
)
def test_bytes_that_begin_no_request_are_refused_at_once(server: Running, before: bytes, sent: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(before)
        if before:
            assert connection.recv(65_536).endswith(b'{"cases":[]}')
        connection.sendall(sent)  # and keep the connection open
        response = receive_all(connection)
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert list(json.loads(body)) == ["detail"]
    found = re.search(rb"X-Request-Id: ([0-9a-f]{16})", head)
    assert found is not None
    logged = server.wait_for(rf".*\[request {found[1].decode()}\]\n")[0]
    assert "request refused with 400: Request line is invalid" in logged
    assert server.printed.count(found[1].decode()) == 1
    assert "s3cr3t" not in server.printed.lower()


@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_a_request_may_arrive_byte_by_byte(server: Running, database: CasesDatabase, before: bytes) -> None:
    database.add(case())
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in before + REQUEST:
            connection.sendall(bytes([byte]))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("condition", [b"", b"If-None-Match: *\r\n"], ids=["200", "304"])
@pytest.mark.parametrize(
    ("version", "fields", "is_kept"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"close"], False),
        (b"1.1", [b"TE, close"], False),
        (b"1.1", [b"TE", b"Close"], False),
        (b"1.1", [b"close", b"close"], False),
        (b"1.1", [b"keep-alive, close"], False),
        (b"1.1", [b"CLOSE ,\tkeep-alive"], False),
        (b"1.1", [b",close,"], False),
        (b"1.1", [b"keep-alive, TE"], True),
        (b"1.1", [b"closed, not-close"], True),
        (b"1.0", [], False),
        (b"1.0", [b"TE, keep-alive"], True),
        (b"1.0", [b"TE", b"Keep-Alive"], True),
        (b"1.0", [b"keep-alive", b"close"], False),
        (b"1.0", [b"TE, Upgrade"], False),
    ],
)
def test_connection_is_a_list(
    server: Running, version: bytes, fields: list[bytes], is_kept: bool, condition: bytes
) -> None:
    if version == b"1.0" and condition:
        is_kept = False  # such a response has no Content-Length
    lines = b"".join(b"Connection: " + field + b"\r\n" for field in fields) + condition
    with server.connect() as connection:
        connection.sendall(REQUEST.replace(b"1.1\r\n", version + b"\r\n" + lines) + REQUEST)
        if not is_kept:
            response = receive_all(connection)
            assert response.count(b"HTTP/1.") == 1
            assert b"\r\nConnection: close\r\n" in response
        else:
            received = b""
            while received.count(b"HTTP/1.") < 2:
                more = connection.recv(65_536)
                assert more
                received += more
            assert b"\r\nConnection: close\r\n" not in received
