"""Many clients, and slow ones, behind nginx."""

import socket
import statistics
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.nginx import nginx
from tests.faults.postgres import Postgres
from tests.faults.service import ASKED, clients, serving

pytestmark = pytest.mark.faults

# A drip is a client that sends one byte of its header in so many seconds.
DRIPS, DRIP_SECONDS = 98, 0.2
ROUNDS, REQUESTS = 5, 600


@contextmanager
def drips(port: int) -> Iterator[None]:
    """Let slow clients send for as long as the block lasts."""
    header = f"GET {ASKED} HTTP/1.1\r\nHost: x\r\nX-Slow: {'.' * 5_000}".encode()
    enough = threading.Event()
    with ExitStack() as stack:
        senders = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(DRIPS)]

        def send() -> None:
            for byte in header:
                for sender in senders:
                    sender.send(bytes([byte]))
                    enough.wait(DRIP_SECONDS / DRIPS)
                if enough.is_set():
                    return

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()


def p99(port: int) -> float:
    """How long 99 of 100 requests of eight clients take at most, in seconds; all get their cases."""
    with clients(port) as asking:
        asking.wait_for(REQUESTS)
    assert asking.failed == []
    return statistics.quantiles([answer.seconds for answer in asking.answers], n=100)[-1]


def test_more_clients_than_threads(postgres: Postgres, tmp_path: Path) -> None:
    with (
        serving(postgres.service_dsn, MEDMITRA_THREADS="4") as server,
        nginx(tmp_path, server.port) as port,
        clients(port, 64) as asking,
    ):
        asking.wait_for(1_000)
    assert asking.failed == []


def test_slow_clients_are_no_burden_to_others(postgres: Postgres, tmp_path: Path) -> None:
    without, beside = [], []
    with serving(postgres.service_dsn) as server, nginx(tmp_path, server.port) as port:
        p99(port)  # the first of all are slow for reasons of their own
        for _ in range(ROUNDS):
            without.append(p99(port))
            with drips(port):
                beside.append(p99(port))
    assert statistics.median(beside) <= 2 * statistics.median(without)
