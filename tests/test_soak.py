"""Ten minutes of mixed traffic and faults leak no threads, descriptors or memory: ``make soak``."""

import http.client
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from medmitra_cases.embedded.postgres import embedded_postgres
from tests.support.factories import DOCTOR, LAYOUTS, CasesDatabase, execute
from tests.support.load import load
from tests.support.processes import Running, serve, wait_until

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
# The first part of SECONDS, in which caches and the allocator's arenas fill.
WARM_UP_SECONDS = SECONDS / 5
MAX_GROWTH_KB = 2_048
# The time from one fault to the next.
FAULT_SECONDS = 3.0

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"
DOCTOR_WITH_LONG_LIST = DOCTOR[:-1] + "7"
LONG_LIST = f"/cases/all_cases?user_id={DOCTOR_WITH_LONG_LIST}"
SESSIONS = "FROM pg_stat_activity WHERE usename = 'medmitra_cases'"
# The requests of other clients, in addition to those for 50 cases.
OTHERS = (LONG_LIST, "/cases/all_cases?user_id=nobody", "/x", f"/cases/all_cases?user_id={DOCTOR[:-1]}8")


class Postgres:
    """A Postgres for this test, which is restarted now and then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        self.dsn = self._running.enter_context(embedded_postgres(self._folder))
        self.owner = self._running.enter_context(closing(psycopg2.connect(self.dsn)))
        self.owner.autocommit = True

    def stop(self) -> None:
        self._running.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def terminate_backends(self) -> None:
        execute(
            self.owner,
            f"SELECT pg_terminate_backend(pid) {SESSIONS}",
        )

    def lock_table(self) -> None:
        """Lock the table for longer than the statement timeout of the service."""
        with closing(psycopg2.connect(self.dsn)) as writer:
            execute(writer, "LOCK TABLE medmitra.cases IN ACCESS EXCLUSIVE MODE")
            threading.Event().wait(1)

    def freeze_backends(self) -> None:
        """Stop two backends for longer than the service waits for a response of the database."""
        pids = execute(self.owner, f"SELECT pid {SESSIONS} LIMIT 2")
        for (pid,) in pids:
            os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(2.5)
        for (pid,) in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def repeatedly(call: Callable[[], None], pause_seconds: float) -> Iterator[None]:
    """Call a function again and again until the block ends."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(pause_seconds):
            call()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def abort_long_list(server: Running) -> None:
    """Request a long list, and disconnect before its end."""
    with server.connect() as client:
        client.sendall(f"GET {LONG_LIST} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(1_000)


class Resources(NamedTuple):
    """Resources of the process: the numbers of threads and descriptors, and the memory in kB."""

    threads: int
    descriptors: int
    memory: int


def settled_resources(server: Running) -> Resources:
    """Return the resources when no request runs, after a second in which only the memory changed."""
    wait_until(lambda: server.metric("medmitra_http_requests_in_flight") == 0)
    samples = [read_resources(server.process.pid)]

    def settled() -> bool:
        samples.append(read_resources(server.process.pid))
        threading.Event().wait(0.05)
        return len(samples) > 20 and len({sample[:2] for sample in samples[-20:]}) == 1

    wait_until(settled)
    return samples[-1]


def read_resources(pid: int) -> Resources:
    folder = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    descriptors = len(list((folder / "fd").iterdir()))
    return Resources(int(status["Threads"]), descriptors, int(status["VmRSS"].split()[0]))


def traffic(server: Running, postgres: Postgres, seconds: float) -> int:
    """Run all kinds of clients and faults; returns the number of requests."""

    def connect() -> http.client.HTTPConnection:
        return http.client.HTTPConnection(server.host, server.port, timeout=30)

    faults = [postgres.terminate_backends, postgres.lock_table, postgres.freeze_backends, postgres.restart]
    count = 0

    def fault() -> None:
        nonlocal count
        faults[count % len(faults)]()
        count += 1

    with ExitStack() as stack:
        clients = [stack.enter_context(load(connect, CASES_URL, 6))]
        clients += [stack.enter_context(load(connect, target, 1)) for target in OTHERS]
        stack.enter_context(repeatedly(lambda: abort_long_list(server), 0.5))
        stack.enter_context(repeatedly(lambda: server.ask_admin("/readyz") and None, 1))
        stack.enter_context(repeatedly(fault, FAULT_SECONDS))
        threading.Event().wait(seconds)
    results = [result for each in clients for result in each.answers]
    # 0: a fault interrupted a long list.
    assert {result.status for result in results} == {0, 200, 400, 404, 500}
    assert {result.status for result in clients[0].answers} == {200, 500}
    return len(results)


def test_traffic_and_faults_leak_no_resources(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    postgres = Postgres(folder)
    LAYOUTS["own_table"].create(postgres.owner)
    url = make_dsn(postgres.dsn, user="medmitra_cases", options="-c statement_timeout=500")
    database = CasesDatabase(LAYOUTS["own_table"], postgres.owner, postgres.dsn, url)
    database.add_many([DOCTOR], 50)
    database.add_many([DOCTOR_WITH_LONG_LIST], 5_000)
    with serve(url, MEDMITRA_ADMIN_LISTEN="127.0.0.1:0") as server:
        traffic(server, postgres, WARM_UP_SECONDS)
        before = settled_resources(server)
        requests = traffic(server, postgres, SECONDS - WARM_UP_SECONDS)
        after = settled_resources(server)
        assert server.end() == 0
    postgres.stop()
    with capsys.disabled():
        print(f"\n{requests} requests; before {before}, after {after}")  # noqa: T201
    assert after[:2] == before[:2]
    assert after.memory - before.memory <= MAX_GROWTH_KB
