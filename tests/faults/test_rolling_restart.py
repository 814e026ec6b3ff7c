"""The service is restarted behind nginx while clients ask, and none of them notices."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.nginx import nginx
from tests.faults.postgres import Postgres
from tests.faults.service import clients
from tests.support.processes import COMMAND, Running, running, running_on
from tests.support.programs import free_port

# running_on() forks beside other threads, of which Python warns from 3.12 on.
pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

RESTARTS, REQUESTS = 5, 5_000


def test_on_a_socket_that_outlives_the_processes(postgres: Postgres, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listening, ExitStack() as stack:

        def start() -> Running:
            serve = running_on(listening, COMMAND, "serve", DATABASE_URL=postgres.service_dsn)
            return stack.enter_context(serve)

        server = start()
        port = stack.enter_context(nginx(tmp_path, listening.getsockname()[1]))
        asking = stack.enter_context(clients(port))
        for _ in range(RESTARTS):
            asking.wait_for(REQUESTS // RESTARTS)
            before, server = server, start()
            assert before.end() == 0
        asking.stop()
    assert len(asking.answers) >= REQUESTS
    assert asking.failed == []


def test_one_of_two_after_the_other(postgres: Postgres, tmp_path: Path) -> None:
    ports = free_port(), free_port()
    with ExitStack() as stack:

        def start(port: int) -> Running:
            serve = running(
                COMMAND, "serve", "--listen", f"127.0.0.1:{port}", DATABASE_URL=postgres.service_dsn
            )
            return stack.enter_context(serve)

        servers = [start(port) for port in ports]
        asking = stack.enter_context(clients(stack.enter_context(nginx(tmp_path, *ports))))
        for number in range(RESTARTS):
            asking.wait_for(REQUESTS // RESTARTS)
            which = number % 2
            assert servers[which].end() == 0
            servers[which] = start(ports[which])
        asking.wait_for(100)
        asking.stop()
    assert len(asking.answers) >= REQUESTS
    assert asking.failed == []
