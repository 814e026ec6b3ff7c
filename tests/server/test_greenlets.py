"""Requests in greenlets: one thread runs them all, and none of them stops the others."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from medmitra_cases.server.greenlets import GreenletDispatcher
from medmitra_cases.telemetry import call_blocking
from tests.support.factories import DOCTOR, CasesDatabase, case
from tests.support.key_server import KeyServer
from tests.support.processes import TIMEOUT_SECONDS, Running, serve, wait_until
from tests.support.tokens import EC_KEY, issued_by_key, jwk

# These tests do not depend on the table layout.
on_own_table = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"


@pytest.fixture
def server(database: CasesDatabase) -> Iterator[Running]:
    """The service that runs four requests at a time."""
    with serve(database.service_dsn, MEDMITRA_THREADS="4") as server:
        assert server.get(CASES_URL)[0].status == 200
        yield server


def threads(server: Running) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


@on_own_table
def test_one_thread_runs_all_requests(server: Running, database: CasesDatabase) -> None:
    database.add(case())
    with ThreadPoolExecutor(6) as pool:
        with database.locked():
            responses = [pool.submit(server.get, CASES_URL) for _ in range(6)]
            wait_until(lambda: len(database.waiting) == 4)  # the other two wait for their turn
        for response in responses:
            assert len(json.loads(response.result()[1])["cases"]) == 1
        before = threads(server)
        with database.locked():
            responses = [pool.submit(server.get, CASES_URL) for _ in range(6)]
            wait_until(lambda: len(database.waiting) == 4)
            assert threads(server) == before
        assert {response.result()[0].status for response in responses} == {200}


@on_own_table
def test_requests_that_take_turns_do_not_mix(server: Running, database: CasesDatabase) -> None:
    doctors = [DOCTOR[:-2] + f"{number:02}" for number in range(20)]
    for number, doctor in enumerate(doctors):
        database.add_many([doctor], number)

    def request(number: int) -> None:
        for turn in range(20):
            name = f"doctor-{number}-{turn}"
            url = CASES_URL.replace(DOCTOR, doctors[number])
            response, body = server.get(url, **{"X-Request-ID": name})
            assert response.headers["X-Request-ID"] == name
            assert [found["user_id"] for found in json.loads(body)["cases"]] == [doctors[number]] * number

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(request, range(20)))
    assert server.end() == 0
    entries = [json.loads(line) for line in server.printed.splitlines() if line.startswith('{"time"')]
    named = [entry for entry in entries if entry["request_id"].startswith("doctor-")]
    assert len(named) == 400
    for entry in named:
        number = int(entry["request_id"].split("-")[1])
        assert (entry["user_id"], entry["cases"]) == (doctors[number], number)


@on_own_table
@pytest.mark.parametrize("times", [1, 5])
def test_sessions_that_end_during_a_query_leave_the_others_alone(
    server: Running, database: CasesDatabase, times: int
) -> None:
    for _ in range(times):
        with ThreadPoolExecutor(6) as pool:
            with database.locked():
                responses = [pool.submit(server.get, CASES_URL) for _ in range(6)]
                wait_until(lambda: len(database.waiting) == 4)
                # The error of Postgres and the end of its connection arrive together.
                database.terminate_sessions()
            assert [response.result()[0].status for response in responses] == [200] * 6
    assert "ended without a response" not in server.printed


@on_own_table
def test_a_fetch_of_keys_does_not_stop_other_requests(database: CasesDatabase) -> None:
    token = {"Authorization": f"Bearer {issued_by_key(EC_KEY, 'ec-1')}"}
    with closing(KeyServer()) as key_server:
        key_server.publish(jwk(EC_KEY, "ec-1"))
        with (
            serve(database.service_dsn, MEDMITRA_JWKS_URL=key_server.url) as server,
            ThreadPoolExecutor(1) as pool,
        ):
            with key_server.holding():
                waits = pool.submit(server.get, CASES_URL, **token)
                key_server.wait_for_fetches(1)
                for _ in range(20):
                    assert server.get(CASES_URL)[0].status == 401
                assert not waits.done()
            assert waits.result()[0].status == 200


def test_a_server_that_does_not_accept_stops_no_page() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"host=127.0.0.1 port={silent.getsockname()[1]} dbname=clinic user=reader"
        with serve(url, MEDMITRA_THREADS="2") as server, ThreadPoolExecutor(1) as pool:
            waits = pool.submit(server.get, CASES_URL)
            with silent.accept()[0]:  # the connection of the request
                for _ in range(20):
                    assert server.get("/openapi.json")[0].status == 200
                assert not waits.done()
                assert waits.result()[0].status == 500


class Request:
    """A channel whose request makes a call that blocks."""

    def service(self) -> None:
        self.result = call_blocking(int, "7")
        with pytest.raises(ZeroDivisionError):
            call_blocking(divmod, 1, 0)


@pytest.mark.parametrize("can_start_threads", [True, False])
def test_a_call_that_blocks_ends_with_its_result(
    monkeypatch: pytest.MonkeyPatch, can_start_threads: bool
) -> None:
    woken = threading.Semaphore(0)
    dispatcher = GreenletDispatcher({}, 1)
    dispatcher.wake = woken.release
    if not can_start_threads:
        # The process of the tests may start as many as it likes, because it belongs to root.
        monkeypatch.setattr(
            threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread"))
        )
    request = Request()
    dispatcher.add_task(request)
    dispatcher.run_requests()
    for _ in range(2 * can_start_threads):
        assert woken.acquire(timeout=TIMEOUT_SECONDS)
        dispatcher.run_requests()
    assert request.result == 7
    assert dispatcher.is_idle


def test_code_outside_of_requests_blocks_its_thread() -> None:
    assert call_blocking(threading.get_ident) == threading.get_ident()
