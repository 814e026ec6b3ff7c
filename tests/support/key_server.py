"""A real key server, which answers, fails, falls silent or is gone as a test tells it to."""

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
    """What it answers."""

    status: int
    body: bytes
    location: str | None = None


class KeyServer:
    """Listens on a free port; publishes an empty set of keys until told otherwise."""

    def __init__(self) -> None:
        self.answer = Answer(200, b'{"keys": []}')
        self.fetches = 0
        self._changed = threading.Condition()
        self._held = False
        # Keeps the port while nobody listens there; not listening itself, it is in nobody's way.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self._port = self._place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/keys"
        self._listen()

    def _listen(self) -> None:
        self._server = _Server(self._port, self)
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def _refuse(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def publish(self, *keys: dict[str, Any]) -> None:
        """Answer with these keys."""
        self.answer = Answer(200, json.dumps({"keys": keys}).encode())

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Refuse connections in this block."""
        self._refuse()
        try:
            yield
        finally:
            self._listen()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Accept connections in this block, but answer only when it ends."""
        with self._changed:
            self._held = True
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()

    def wait_for_fetches(self, count: int) -> None:
        """Wait until it has been asked so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.fetches >= count, TIMEOUT_SECONDS)

    def close(self) -> None:
        """Stop, and give the port back."""
        self._refuse()
        self._place.close()

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request; called in a thread of its own."""
        with self._changed:
            self.fetches += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._held)
        handler.send_response(self.answer.status)
        if self.answer.location:
            handler.send_header("Location", self.answer.location)
        handler.end_headers()
        handler.wfile.write(self.answer.body)


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        with suppress(ConnectionError):  # who gave up waiting
            self.server.owner.respond(self)

    def log_message(self, *_: Any) -> None:
        pass


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, owner: KeyServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", port), _Handler)
