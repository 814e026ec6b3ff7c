"""nginx protects the service from many clients and from slow clients."""

import socket
import statistics
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.nginx import nginx
from tests.faults.postgres import Postgres
from tests.faults.service import TARGET, clients, serving

pytestmark = pytest.mark.faults

# Each slow client sends one byte of its header every 0.2 s.
SLOW_CLIENTS, BYTE_SECONDS = 98, 0.2
ROUNDS, REQUESTS = 5, 600


@contextmanager
def slow_clients(port: int) -> Iterator[None]:
    """Run slow clients until the block ends."""
    header = f"GET {TARGET} HTTP/1.1\r\nHost: x\r\nX-Slow: {'.' * 5_000}".encode()
    stopping = threading.Event()
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(SLOW_CLIENTS)
        ]

        def send() -> None:
            for byte in header:
                for connection in connections:
                    connection.send(bytes([byte]))
                    stopping.wait(BYTE_SECONDS / SLOW_CLIENTS)
                if stopping.is_set():
                    return

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()


def p99(port: int) -> float:
    """Return the 99th percentile of eight clients' response times, in seconds; no request may fail."""
    with clients(port) as load:
        load.wait_for(REQUESTS)
    assert load.failed == []
    return statistics.quantiles([answer.seconds for answer in load.answers], n=100)[-1]


def test_64_clients_get_their_cases_with_four_requests_at_a_time(postgres: Postgres, tmp_path: Path) -> None:
    with (
        serving(postgres.service_dsn, MEDMITRA_THREADS="4") as server,
        nginx(tmp_path, server.port) as port,
        clients(port, 64) as load,
    ):
        load.wait_for(1_000)
    assert load.failed == []


def test_slow_clients_do_not_slow_down_other_clients(postgres: Postgres, tmp_path: Path) -> None:
    alone, beside_slow_clients = [], []
    with serving(postgres.service_dsn) as server, nginx(tmp_path, server.port) as port:
        p99(port)  # warm-up: the first requests are slower
        for _ in range(ROUNDS):
            alone.append(p99(port))
            with slow_clients(port):
                beside_slow_clients.append(p99(port))
    assert statistics.median(beside_slow_clients) <= 2 * statistics.median(alone)
