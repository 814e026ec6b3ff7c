"""Clients that send requests without end, and the result of each request."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from tests.support.processes import TIMEOUT_SECONDS

# Returns a new connection for one client.
Connect = Callable[[], http.client.HTTPConnection]


class Answer(NamedTuple):
    """The result of one request.

    Attributes:
        ended_at: When it ended, by the monotonic clock.
        seconds: How long it took.
        status: The HTTP status, or 0 if there was no complete response.
        body: The body, or the error if there was no complete response. ``Load`` drops the body of a 200.
    """

    ended_at: float
    seconds: float
    status: int
    body: bytes


class Load:
    """Some clients; each sends one request at a time, and reconnects when its connection is closed."""

    def __init__(
        self, connect: Connect, target: str, clients: int, headers: Mapping[str, str], pause_seconds: float
    ) -> None:
        self.answers: list[Answer] = []
        self._connect = connect
        self._target = target
        self._headers = headers
        self._pause_seconds = pause_seconds
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send_requests, daemon=True) for _ in range(clients)]

    def start(self) -> None:
        """Start the clients."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the clients, and wait for their last responses."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT_SECONDS)

    @property
    def failed(self) -> list[Answer]:
        """Return the results of the requests that did not get a 200."""
        return [answer for answer in self.answers if answer.status != 200]

    @property
    def slowest(self) -> float:
        """Return the duration of the slowest request, in seconds."""
        return max(answer.seconds for answer in self.answers)

    def wait_for(self, count: int) -> None:
        """Wait until this many more requests have ended."""
        target_count = len(self.answers) + count
        deadline = time.monotonic() + 2 * TIMEOUT_SECONDS
        while len(self.answers) < target_count:
            assert time.monotonic() < deadline
            self._stopping.wait(0.01)

    def _send_requests(self) -> None:
        connection = self._connect()
        while not self._stopping.is_set():
            started = time.monotonic()
            status, body = 0, b""
            try:
                connection.request("GET", self._target, headers=self._headers)
                response = connection.getresponse()
                received = response.read()
                status = response.status
                body = b"" if status == 200 else received  # thousands of lists would fill the memory
            except (OSError, http.client.HTTPException) as error:
                body = repr(error).encode()
                connection.close()
            ended = time.monotonic()
            self.answers.append(Answer(ended, ended - started, status, body))
            if self._pause_seconds:
                self._stopping.wait(self._pause_seconds)
        connection.close()


@contextmanager
def load(
    connect: Connect,
    target: str,
    clients: int = 8,
    headers: Mapping[str, str] = MappingProxyType({}),
    pause_seconds: float = 0,
) -> Iterator[Load]:
    """Run clients until the block ends; each sends the header fields, and pauses after each response."""
    running_load = Load(connect, target, clients, headers, pause_seconds)
    running_load.start()
    try:
        yield running_load
    finally:
        running_load.stop()
