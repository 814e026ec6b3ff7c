"""Restarts of the service behind nginx lose no request."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.nginx import nginx
from tests.faults.postgres import Postgres
from tests.faults.service import clients
from tests.support.processes import COMMAND, Running, running, running_on
from tests.support.programs import free_port

# running_on() forks while other threads run. Python warns about that since 3.12.
pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

RESTARTS, REQUESTS = 5, 5_000


def test_restarts_on_an_inherited_socket_lose_no_request(postgres: Postgres, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listener, ExitStack() as stack:

        def start() -> Running:
            return stack.enter_context(
                running_on(listener, COMMAND, "serve", DATABASE_URL=postgres.service_dsn)
            )

        server = start()
        port = stack.enter_context(nginx(tmp_path, listener.getsockname()[1]))
        load = stack.enter_context(clients(port))
        for _ in range(RESTARTS):
            load.wait_for(REQUESTS // RESTARTS)
            old_server, server = server, start()
            assert old_server.end() == 0
        load.stop()
    assert len(load.answers) >= REQUESTS
    assert load.failed == []


def test_restarts_of_two_services_in_turn_lose_no_request(postgres: Postgres, tmp_path: Path) -> None:
    ports = free_port(), free_port()
    with ExitStack() as stack:

        def start(port: int) -> Running:
            address = f"127.0.0.1:{port}"
            return stack.enter_context(
                running(COMMAND, "serve", "--listen", address, DATABASE_URL=postgres.service_dsn)
            )

        servers = [start(port) for port in ports]
        load = stack.enter_context(clients(stack.enter_context(nginx(tmp_path, *ports))))
        for number in range(RESTARTS):
            load.wait_for(REQUESTS // RESTARTS)
            index = number % 2
            assert servers[index].end() == 0
            servers[index] = start(ports[index])
        load.wait_for(100)
        load.stop()
    assert len(load.answers) >= REQUESTS
    assert load.failed == []
