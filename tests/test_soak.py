"""Ten minutes of mixed traffic and faults leave nothing behind: ``make soak``."""

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
# Of these the first, in which caches and the allocator's arenas fill.
WARM_UP_SECONDS = SECONDS / 5
MAX_GROWTH_KB = 2_048
# From one fault to the next.
FAULT_SECONDS = 3.0

ASKED = f"/cases/all_cases?user_id={DOCTOR}"
MANY_CASES = DOCTOR[:-1] + "7"
LONG_LIST = f"/cases/all_cases?user_id={MANY_CASES}"
SESSIONS = "FROM pg_stat_activity WHERE usename = 'medmitra_cases'"
# What the rest of the world sends beside the requests for 50 cases.
OTHERS = (LONG_LIST, "/cases/all_cases?user_id=nobody", "/x", f"/cases/all_cases?user_id={DOCTOR[:-1]}8")


class Postgres:
    """A Postgres of the test's own that is restarted now and then."""

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
        """For longer than the queries may wait for it."""
        with closing(psycopg2.connect(self.dsn)) as writer:
            execute(writer, "LOCK TABLE medmitra.cases IN ACCESS EXCLUSIVE MODE")
            threading.Event().wait(1)

    def freeze_backends(self) -> None:
        """For longer than the service waits for an answer."""
        pids = execute(self.owner, f"SELECT pid {SESSIONS} LIMIT 2")
        for (pid,) in pids:
            os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(2.5)
        for (pid,) in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def repeatedly(do: Callable[[], None], pause_seconds: float) -> Iterator[None]:
    """Do something again and again for as long as the block lasts."""
    enough = threading.Event()

    def go_on() -> None:
        while not enough.wait(pause_seconds):
            do()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def break_off(server: Running) -> None:
    """Ask for a long list, and go away in the middle of it."""
    with server.connect() as reader:
        reader.sendall(f"GET {LONG_LIST} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        reader.recv(1_000)


class Held(NamedTuple):
    """What the process holds: threads and descriptors by number, memory in kB."""

    threads: int
    descriptors: int
    memory: int


def held(server: Running) -> Held:
    """What it holds once nobody asks for anything, and for a second nothing has changed but its memory."""
    wait_until(lambda: server.metric("medmitra_http_requests_in_flight") == 0)
    looks = [_held(server.process.pid)]

    def settled() -> bool:
        looks.append(_held(server.process.pid))
        threading.Event().wait(0.05)
        return len(looks) > 20 and len({look[:2] for look in looks[-20:]}) == 1

    wait_until(settled)
    return looks[-1]


def _held(pid: int) -> Held:
    folder = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    descriptors = len(list((folder / "fd").iterdir()))
    return Held(int(status["Threads"]), descriptors, int(status["VmRSS"].split()[0]))


def traffic(server: Running, postgres: Postgres, seconds: float) -> int:
    """Let all kinds of clients ask and all kinds of faults happen; returns how many requests that were."""

    def connect() -> http.client.HTTPConnection:
        return http.client.HTTPConnection(server.host, server.port, timeout=30)

    faults = [postgres.terminate_backends, postgres.lock_table, postgres.freeze_backends, postgres.restart]
    count = 0

    def fault() -> None:
        nonlocal count
        faults[count % len(faults)]()
        count += 1

    with ExitStack() as stack:
        clients = [stack.enter_context(load(connect, ASKED, 6))]
        clients += [stack.enter_context(load(connect, target, 1)) for target in OTHERS]
        stack.enter_context(repeatedly(lambda: break_off(server), 0.5))
        stack.enter_context(repeatedly(lambda: server.ask_admin("/readyz") and None, 1))
        stack.enter_context(repeatedly(fault, FAULT_SECONDS))
        threading.Event().wait(seconds)
    answers = [answer for each in clients for answer in each.answers]
    # 0: a fault broke a long list off.
    assert {answer.status for answer in answers} == {0, 200, 400, 404, 500}
    assert {answer.status for answer in clients[0].answers} == {200, 500}
    return len(answers)


def test_soak(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    postgres = Postgres(folder)
    LAYOUTS["own_table"].create(postgres.owner)
    url = make_dsn(postgres.dsn, user="medmitra_cases", options="-c statement_timeout=500")
    database = CasesDatabase(LAYOUTS["own_table"], postgres.owner, postgres.dsn, url)
    database.add_many([DOCTOR], 50)
    database.add_many([MANY_CASES], 5_000)
    with serve(url, MEDMITRA_ADMIN_LISTEN="127.0.0.1:0") as server:
        traffic(server, postgres, WARM_UP_SECONDS)
        before = held(server)
        answered = traffic(server, postgres, SECONDS - WARM_UP_SECONDS)
        after = held(server)
        assert server.end() == 0
    postgres.stop()
    with capsys.disabled():
        print(f"\n{answered} requests; before {before}, after {after}")  # noqa: T201
    assert after[:2] == before[:2]
    assert after.memory - before.memory <= MAX_GROWTH_KB
