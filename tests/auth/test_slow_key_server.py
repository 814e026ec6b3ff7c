"""A key server that never finishes its response does not keep the service from fetching again."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from flask.testing import FlaskClient

from medmitra_cases.auth import jwks
from tests.auth.test_jwks import KEYS, TOKEN, accepted, assert_unavailable, client_of, send_until
from tests.support.factories import CasesDatabase
from tests.support.processes import TIMEOUT_SECONDS, wait_until
from tests.support.tokens import ask

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODY = json.dumps({"keys": KEYS}).encode()
LATE = "no keys from MEDMITRA_JWKS_URL"


class SlowServer:
    """Sends each client the beginning of a response, and then a byte again and again.

    Attributes:
        beginning: The beginning; None sends the keys at once.
        byte: The byte.
        connections: The number of connections so far.
    """

    def __init__(self) -> None:
        self.beginning: bytes | None = None
        self.byte = b"x"
        self.connections = 0
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # close() was called
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection, self.beginning), daemon=True).start()

    def _serve(self, connection: socket.socket, beginning: bytes | None) -> None:
        with connection, suppress(OSError):  # the client has left
            if beginning is None:
                connection.recv(65_536)
                connection.sendall(HEADER + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
                return
            connection.sendall(beginning)
            while not self._closed.wait(0.01):
                connection.sendall(self.byte)


@pytest.fixture
def server() -> Iterator[SlowServer]:
    with closing(SlowServer()) as server:
        yield server


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the limits. A byte comes much more often than FETCH_SECONDS."""
    for name, seconds in {"FETCH": 1, "DEADLINE": 1.5, "REFETCH": 0}.items():
        monkeypatch.setattr(jwks, f"{name}_SECONDS", seconds)


@pytest.fixture
def url(server: SlowServer) -> str:
    return f"http://127.0.0.1:{server.port}/keys"


@pytest.fixture
def client(layout_database: CasesDatabase, url: str) -> Iterator[FlaskClient]:
    with client_of(layout_database, url) as client:
        yield client


RESPONSES = {
    "the status line": (b"", b"H"),
    "a field": (HEADER + b"X: ", b"x"),
    "fields": (HEADER, b"X: x\r\n"),
    "the body": (HEADER + b"Content-Length: 1000000\r\n\r\n", b" "),
    "a body without a length": (HEADER + b"\r\n", b" "),
    "chunks": (HEADER + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize(("beginning", "byte"), RESPONSES.values(), ids=RESPONSES)
def test_the_next_fetch_begins(
    client: FlaskClient,
    server: SlowServer,
    caplog: pytest.LogCaptureFixture,
    beginning: bytes,
    byte: bytes,
) -> None:
    server.beginning, server.byte = beginning, byte
    assert_unavailable(ask(client, TOKEN))
    server.beginning = None
    send_until(client, TOKEN, accepted, check_earlier=assert_unavailable)
    assert server.connections == 2
    assert caplog.text.count(LATE) == 1


def test_known_keys_are_valid_meanwhile_and_new_ones_afterwards(
    client: FlaskClient, server: SlowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert accepted(ask(client, TOKEN))
    server.beginning = HEADER
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0)
    assert accepted(ask(client, TOKEN))
    # The token of a doctor must not end one day after the key server began to do this.
    wait_until(lambda: accepted(ask(client, TOKEN)) and server.connections > 2)
    server.beginning = None
    wait_until(lambda: accepted(ask(client, TOKEN)) and server.connections > 3)


def test_a_tls_handshake(
    layout_database: CasesDatabase, server: SlowServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.beginning = b"\x16\x03\x03\x40\x00"  # the header of a record of 16 kB
    with client_of(layout_database, f"https://127.0.0.1:{server.port}/keys") as client:
        send_until(client, TOKEN, lambda _: server.connections > 1, check_earlier=assert_unavailable)
    assert LATE in caplog.text


def test_a_proxy(
    layout_database: CasesDatabase,
    server: SlowServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
    server.beginning = b"HTTP/1.1 200 OK\r\nX: "
    with client_of(layout_database, "https://keys.example/keys") as client:
        send_until(client, TOKEN, lambda _: server.connections > 1, check_earlier=assert_unavailable)
    assert LATE in caplog.text


def test_a_name_server(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    resolve = socket.getaddrinfo

    def hang(*args: Any, **kwargs: Any) -> Any:
        released.wait(TIMEOUT_SECONDS)
        return resolve(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", hang)
        assert_unavailable(ask(client, TOKEN))
    send_until(client, TOKEN, accepted, check_earlier=assert_unavailable)
    assert caplog.text.count(LATE) == 1
    released.set()  # what the first fetch brings does not count


@pytest.mark.parametrize("scheme", ["http", "HTTP", "Http"])
def test_plain_http_uses_no_proxy_in_any_spelling(
    layout_database: CasesDatabase, server: SlowServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with client_of(layout_database, f"{scheme}://127.0.0.1:{server.port}/keys") as client:
        assert accepted(ask(client, TOKEN))
