"""A real key server that a test can make respond, fail, hang or refuse connections."""

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from tests.support.processes import TIMEOUT_SECONDS


class Answer(NamedTuple):
    """The server's response to every request."""

    status: int
    body: bytes
    location: str | None = None


class KeyServer:
    """Listens on a free port, and publishes an empty key set until a test changes ``answer``.

    Attributes:
        url: The URL of the key set.
        answer: The response to every request.
        fetches: The number of requests so far.
    """

    def __init__(self) -> None:
        self.answer = Answer(200, b'{"keys": []}')
        self.fetches = 0
        self._changed = threading.Condition()
        self._is_holding = False
        # Reserves the port while the server is down. It does not listen, so it accepts no connections.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self._port = self._reservation.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/keys"
        self._start()

    def _start(self) -> None:
        self._server = _Server(self._port, self)
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def publish(self, *keys: dict[str, Any]) -> None:
        """Respond with these keys from now on."""
        self.answer = Answer(200, json.dumps({"keys": keys}).encode())

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Refuse connections until the block ends."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Accept connections, but send no response until the block ends."""
        with self._changed:
            self._is_holding = True
        try:
            yield
        finally:
            with self._changed:
                self._is_holding = False
                self._changed.notify_all()

    def wait_for_fetches(self, count: int) -> None:
        """Wait until the server has received this many requests."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.fetches >= count, TIMEOUT_SECONDS)

    def close(self) -> None:
        """Stop, and release the port."""
        self._stop()
        self._reservation.close()

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        """Respond to one request; each call runs in a separate thread."""
        with self._changed:
            self.fetches += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._is_holding)
        handler.send_response(self.answer.status)
        if self.answer.location:
            handler.send_header("Location", self.answer.location)
        handler.end_headers()
        handler.wfile.write(self.answer.body)


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        with suppress(ConnectionError):  # the client has stopped waiting
            self.server.key_server.respond(self)

    def log_message(self, *_: Any) -> None:
        pass


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, key_server: KeyServer) -> None:
        self.key_server = key_server
        super().__init__(("127.0.0.1", port), _Handler)
