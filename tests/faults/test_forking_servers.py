"""WSGI servers that fork: each doctor gets only their own cases, and each request one line in the audit."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from medmitra_cases.auth.tokens import mint_token
from tests.support.factories import DOCTOR, CasesDatabase, case, settings
from tests.support.key_server import KeyServer
from tests.support.paths import ROOT
from tests.support.processes import Running, environment, wait_until
from tests.support.tokens import EC_KEY, SECRET, issued_by_key, jwk

# These tests do not depend on the table layout.
pytestmark = [pytest.mark.faults, pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)]

OTHER = DOCTOR[:-1] + "a"
DOCTORS = (DOCTOR, OTHER)
REQUESTS = 300

PROGRAMS = Path(sys.executable).parent
GUNICORN = [str(PROGRAMS / "gunicorn"), "--workers", "4", "--bind", "fd://{}"]
SYNC = [*GUNICORN, "--worker-class", "sync"]
GTHREAD = [*GUNICORN, "--worker-class", "gthread", "--threads", "4"]
# uWSGI loads the application before it forks, unless --lazy-apps says otherwise. Without the hooks it forks
# while other threads may hold the interpreter lock, and a worker would wait for it for ever.
UWSGI = [str(PROGRAMS / "uwsgi"), "--http-socket", "fd://{}", "--processes", "4", "--master"]
UWSGI += ["--enable-threads", "--py-call-uwsgi-fork-hooks"]
PLAIN, WARMED_UP = "wsgi:app", "tests.support.warmed_up:app"

COMMANDS = {
    "gunicorn sync": [*SYNC, PLAIN],
    "gunicorn sync preload": [*SYNC, "--preload", PLAIN],
    "gunicorn sync preload warm": [*SYNC, "--preload", WARMED_UP],
    "gunicorn sync preload warm, workers replaced": [*SYNC, "--preload", "--max-requests", "20", WARMED_UP],
    "gunicorn gthread": [*GTHREAD, PLAIN],
    "gunicorn gthread preload": [*GTHREAD, "--preload", PLAIN],
    "gunicorn gthread preload warm": [*GTHREAD, "--preload", WARMED_UP],
    "uwsgi": [*UWSGI, "--module", PLAIN],
    "uwsgi warm": [*UWSGI, "--module", WARMED_UP],
    "uwsgi warm threads": [*UWSGI, "--threads", "4", "--module", WARMED_UP],
    "uwsgi lazy warm threads": [*UWSGI, "--lazy-apps", "--threads", "4", "--module", WARMED_UP],
}


@contextmanager
def running_on_a_socket(command: list[str], **variables: str) -> Iterator[Running]:
    """Run another server than ours; it gets a listening socket, so requests may come at once."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        descriptor = listening.fileno()
        with subprocess.Popen(
            [part.format(descriptor) for part in command],
            env=environment(PYTHONPATH=str(ROOT), **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(descriptor,),
            start_new_session=True,
        ) as process:
            server = Running(process)
            server.host, server.port = listening.getsockname()
            try:
                yield server
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def check_all_requests(server: Running, tokens: dict[str, str], *, warm_ups: int) -> None:
    """Send requests of both doctors, and compare the responses and the audit."""

    def ask(number: int) -> None:
        doctor = DOCTORS[number % 2]
        header = {"Authorization": tokens[doctor], "X-Request-ID": f"fork-{number}"}
        response, body = server.get(f"/cases/all_cases?user_id={doctor}", **header)
        assert response.status == 200, body
        assert [found["user_id"] for found in json.loads(body)["cases"]] == [doctor] * 3

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(REQUESTS)))
    if "gunicorn" in str(server.process.args):
        assert server.end() == 0  # after all lines
    else:  # uWSGI kills its workers, without the lines of the last 10 ms
        wait_until(lambda: server.printed.count('"outcome":') >= REQUESTS + warm_ups)
    lines = [json.loads(line) for line in re.findall(r"^\{.*\"outcome\":.*$", server.printed, re.MULTILINE)]
    expected = Counter(f"fork-{number}" for number in range(REQUESTS)) + Counter({"warm-up": warm_ups})
    assert Counter(line["request_id"] for line in lines) == expected
    assert {line["outcome"] for line in lines} == {"ok"}


@pytest.fixture(autouse=True)
def _cases(database: CasesDatabase) -> None:
    for doctor in DOCTORS:
        database.add(*(case(user_id=doctor) for _ in range(3)))


@pytest.mark.parametrize("name", COMMANDS)
def test_two_doctors(database: CasesDatabase, name: str) -> None:
    warm_up = {"WARM_UP_TARGET": f"/cases/all_cases?user_id={DOCTOR}", "WARM_UP_AUTHORIZATION": ""}
    warm_ups = ("warm" in name) * (4 if "lazy" in name else 1)
    with running_on_a_socket(COMMANDS[name], DATABASE_URL=database.service_dsn, **warm_up) as server:
        check_all_requests(server, {DOCTOR: "", OTHER: ""}, warm_ups=warm_ups)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.endswith("preload warm")])
@pytest.mark.parametrize("has_key_server", [False, True], ids=["secret", "keys"])
def test_two_doctors_with_tokens(database: CasesDatabase, name: str, has_key_server: bool) -> None:
    with closing(KeyServer()) as key_server:
        key_server.publish(jwk(EC_KEY, "ec"))
        if has_key_server:
            variables = {"MEDMITRA_JWKS_URL": key_server.url}
            tokens = {doctor: f"Bearer {issued_by_key(EC_KEY, 'ec', sub=doctor)}" for doctor in DOCTORS}
        else:
            variables = {"MEDMITRA_JWT_SECRET": SECRET}
            configured = settings("dbname=postgres", **variables)
            tokens = {doctor: f"Bearer {mint_token(configured, doctor, minutes=5)}" for doctor in DOCTORS}
        variables |= {
            "WARM_UP_TARGET": f"/cases/all_cases?user_id={OTHER}",
            "WARM_UP_AUTHORIZATION": tokens[OTHER],
            "DATABASE_URL": database.service_dsn,
        }
        with running_on_a_socket(COMMANDS[name], **variables) as server:
            check_all_requests(server, tokens, warm_ups=1)
