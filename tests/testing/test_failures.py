"""A test of another team makes the database fail, or the responses slow."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import requests

from medmitra_cases.testing import Harness, HarnessError, harness
from medmitra_cases.testing.start import TEST_DATABASE_URL
from tests.support.factories import DOCTOR, execute
from tests.support.processes import COMMAND, TIMEOUT_SECONDS, environment, wait_until
from tests.support.programs import free_port

UNAVAILABLE = {"detail": "Internal server error: database unavailable"}


@pytest.fixture(scope="module")
def probes() -> str:
    """Return the address of the admin listener."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def shared(server_dsn: str, probes: str) -> Iterator[Harness]:
    """Yield a harness on a server that it shares with others. A request waits 0.2 s for its database."""
    settings = {"MEDMITRA_ADMIN_LISTEN": probes, "MEDMITRA_DATABASE_WAIT_SECONDS": "0.2"}
    with harness({TEST_DATABASE_URL: server_dsn, **settings}) as started:
        yield started


def get(medmitra: Harness, timeout: float = TIMEOUT_SECONDS, etag: str = "") -> requests.Response:
    return requests.get(
        medmitra.url("/cases/all_cases", user_id=DOCTOR), timeout=timeout, headers={"If-None-Match": etag}
    )


def answer(medmitra: Harness) -> tuple[int, Any]:
    """Return the status and the body, without the request id in its error."""
    response = get(medmitra)
    return response.status_code, json.loads(re.sub(r" \(request id \w+\)", "", response.text))


def ready(probes: str) -> int:
    return requests.get(f"http://{probes}/readyz", timeout=TIMEOUT_SECONDS).status_code


class TestDatabaseDown:
    def test_cases_are_a_500_and_readyz_a_503_until_the_block_ends(
        self, shared: Harness, probes: str
    ) -> None:
        shared.clear()
        case = shared.add_case(user_id=DOCTOR)
        assert (answer(shared), ready(probes)) == ((200, {"cases": [case]}), 200)
        for _ in range(2):
            with shared.database_down():
                for _ in range(3):
                    assert answer(shared) == (500, UNAVAILABLE)
                assert ready(probes) == 503
            wait_until(lambda: ready(probes) == 200)
            wait_until(lambda: answer(shared) == (200, {"cases": [case]}))

    def test_with_default_settings_the_first_request_afterwards_succeeds(self, medmitra: Harness) -> None:
        case = medmitra.add_case(user_id=DOCTOR)
        with medmitra.database_down():
            assert answer(medmitra) == (500, UNAVAILABLE)
        assert answer(medmitra) == (200, {"cases": [case]})

    def test_it_ends_if_the_block_raises(self, shared: Harness) -> None:
        with pytest.raises(ZeroDivisionError), shared.database_down():
            raise ZeroDivisionError
        wait_until(lambda: answer(shared)[0] == 200)

    def test_cases_can_be_added_meanwhile(self, shared: Harness) -> None:
        shared.clear()
        with shared.database_down():
            case = shared.add_case(user_id=DOCTOR)
            assert answer(shared) == (500, UNAVAILABLE)
        wait_until(lambda: answer(shared) == (200, {"cases": [case]}))

    def test_a_harness_on_the_same_server_is_not_affected(self, shared: Harness, server_dsn: str) -> None:
        with harness({TEST_DATABASE_URL: server_dsn}) as other:
            case = other.add_case(user_id=DOCTOR)
            assert answer(other) == (200, {"cases": [case]})
            with shared.database_down():
                assert answer(shared) == (500, UNAVAILABLE)
                assert answer(other) == (200, {"cases": [case]})
                with closing(psycopg2.connect(other.database_url)) as owner:
                    assert execute(owner, "SELECT count(*) FROM medmitra.cases") == [(1,)]
        wait_until(lambda: answer(shared)[0] == 200)

    def test_a_harness_that_ends_meanwhile_leaves_no_database(self, server_dsn: str) -> None:
        with closing(psycopg2.connect(server_dsn)) as server:
            server.autocommit = True
            databases = "SELECT datname FROM pg_database ORDER BY 1"
            before = execute(server, databases)
            with harness({TEST_DATABASE_URL: server_dsn}) as medmitra:
                medmitra._execute("database_down")
            assert execute(server, databases) == before


class TestSlow:
    def test_each_response_for_cases_takes_longer_until_the_block_ends(self, shared: Harness) -> None:
        tag = get(shared).headers["ETag"]
        with shared.slow(0.3):
            for known, status in (("", 200), (tag, 304)):
                began_at = time.monotonic()
                assert get(shared, etag=known).status_code == status
                assert time.monotonic() - began_at >= 0.3
            with pytest.raises(requests.Timeout):
                get(shared, timeout=0.1)
        assert get(shared).elapsed.total_seconds() < 0.3

    def test_errors_are_slow_too(self, shared: Harness) -> None:
        with shared.slow(0.3), shared.database_down():
            began_at = time.monotonic()
            assert answer(shared) == (500, UNAVAILABLE)
            assert time.monotonic() - began_at >= 0.3
        wait_until(lambda: answer(shared)[0] == 200)

    def test_responses_that_wait_are_sent_at_the_end_of_the_block(self, shared: Harness) -> None:
        with ThreadPoolExecutor(6) as pool:
            with shared.slow(30):
                waiting = [pool.submit(get, shared) for _ in range(6)]
                with pytest.raises(requests.Timeout):
                    get(shared, timeout=0.1)
                assert not any(future.done() for future in waiting)
            assert [future.result().status_code for future in waiting] == 6 * [200]

    def test_it_ends_if_the_block_raises(self, shared: Harness) -> None:
        with pytest.raises(ZeroDivisionError), shared.slow(30):
            raise ZeroDivisionError
        assert get(shared, timeout=TIMEOUT_SECONDS / 2).status_code == 200

    def test_a_long_list_is_complete(self, shared: Harness) -> None:
        shared.clear()
        cases = shared.add_cases(3_000, user_id=DOCTOR)  # a stream
        with shared.slow(0.2):
            assert answer(shared) == (200, {"cases": cases})
        shared.clear()

    def test_other_paths_and_preflights_are_not_slow(self, shared: Harness, probes: str) -> None:
        url = shared.url("/cases/all_cases")
        with shared.slow(30):
            assert requests.get(shared.url("/openapi.json"), timeout=TIMEOUT_SECONDS / 2).status_code == 200
            assert requests.options(url, timeout=TIMEOUT_SECONDS / 2).status_code == 200
            assert ready(probes) == 200

    @pytest.mark.parametrize("seconds", [-1, 30.1, float("nan"), float("inf"), True, "1", None])
    def test_an_invalid_time_is_refused(self, shared: Harness, seconds: Any) -> None:
        with (
            pytest.raises(HarnessError, match="seconds must be a number from 0 to 30"),
            shared.slow(seconds),
        ):
            pass
        assert answer(shared)[0] == 200

    def test_the_harness_ends_while_responses_wait(self, server_dsn: str) -> None:
        with harness({TEST_DATABASE_URL: server_dsn}) as medmitra:
            medmitra._execute("slow", seconds=30)
            with pytest.raises(requests.Timeout):
                get(medmitra, timeout=0.1)


class TestTheCommand:
    def test_its_lines_begin_and_end_the_failures(self, server_dsn: str) -> None:
        variables = environment(**{TEST_DATABASE_URL: server_dsn, "MEDMITRA_DATABASE_WAIT_SECONDS": "0.2"})
        with subprocess.Popen(
            [COMMAND, "harness"], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            url = f"{json.loads(process.stdout.readline())['url']}/cases/all_cases?user_id={DOCTOR}"

            def status() -> int:
                return requests.get(url, timeout=TIMEOUT_SECONDS).status_code

            statuses = []
            for line in ('{"database_down": {}}', '{"database_up": {}}', '{"slow": {"seconds": 0.3}}'):
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
                assert json.loads(process.stdout.readline()) == {"result": None}
                if "up" in line:
                    wait_until(lambda: status() == 200)
                statuses.append(status())
            assert statuses == [500, 200, 200]
            with pytest.raises(requests.Timeout):
                requests.get(url, timeout=0.1)
            process.stdin.close()
            assert process.wait(TIMEOUT_SECONDS) == 0
