"""Clients that ask all the time, and what became of each of their requests."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.support.processes import TIMEOUT_SECONDS

# Makes a connection of its own for each client.
Connect = Callable[[], http.client.HTTPConnection]


class Answer(NamedTuple):
    """What became of one request.

    When it ended and how long it took, in seconds; its status, 0 without a whole answer; unless that is 200,
    its body, or the error.
    """

    ended_at: float
    seconds: float
    status: int
    body: bytes


class Load:
    """Some clients, each with one request at a time and one connection for as long as that is kept."""

    def __init__(self, connect: Connect, target: str, clients: int) -> None:
        self.answers: list[Answer] = []
        self._connect = connect
        self._target = target
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more, and wait for the last answers."""
        self._enough.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT_SECONDS)

    @property
    def failed(self) -> list[Answer]:
        """The requests that did not get their cases."""
        return [answer for answer in self.answers if answer.status != 200]

    @property
    def slowest(self) -> float:
        """How long the slowest took, in seconds."""
        return max(answer.seconds for answer in self.answers)

    def wait_for(self, count: int) -> None:
        """Wait for so many more answers."""
        enough = len(self.answers) + count
        give_up_at = time.monotonic() + 2 * TIMEOUT_SECONDS
        while len(self.answers) < enough:
            assert time.monotonic() < give_up_at
            self._enough.wait(0.01)

    def _ask(self) -> None:
        connection = self._connect()
        while not self._enough.is_set():
            begun = time.monotonic()
            status, body = 0, b""
            try:
                connection.request("GET", self._target)
                response = connection.getresponse()
                received = response.read()
                status = response.status
                body = b"" if status == 200 else received  # thousands of lists would be much to keep
            except (OSError, http.client.HTTPException) as error:
                body = repr(error).encode()
                connection.close()
            ended = time.monotonic()
            self.answers.append(Answer(ended, ended - begun, status, body))
        connection.close()


@contextmanager
def load(connect: Connect, target: str, clients: int = 8) -> Iterator[Load]:
    """Let clients ask for as long as the block lasts."""
    clients_at_work = Load(connect, target, clients)
    clients_at_work.start()
    try:
        yield clients_at_work
    finally:
        clients_at_work.stop()
