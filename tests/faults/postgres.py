"""A Postgres server that can be stopped in every way there is, with one doctor's 50 cases in it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.testing.postgres import open_folder
from tests.support.factories import DOCTOR, LAYOUTS, CasesDatabase, execute
from tests.support.processes import TIMEOUT_SECONDS, wait_until
from tests.support.programs import NOBODY

CASES = 50

# How a server is stopped: its sessions ended first, nothing written at all, no word said.
FAST, IMMEDIATE, KILLED = signal.SIGINT, signal.SIGQUIT, signal.SIGKILL


class Postgres:
    """The server, on a Unix socket and where else ``start`` is told."""

    def __init__(self, programs: Path, data: Path, port: int = 5432) -> None:
        self.programs = programs
        self.data = data
        self.port = port
        self.sockets = data.parent / "socket"
        self.dsn = make_dsn(host=str(self.sockets), port=port, user="postgres", dbname="postgres")
        self.service_dsn = make_dsn(self.dsn, user="medmitra_cases")

    def start(self, *within: str, listen: str = "") -> None:
        """Start, and wait until it answers; ``within`` comes in front of the command."""
        options = ("-k", self.sockets, "-p", str(self.port), "-c", f"listen_addresses={listen}")
        with self.data.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [*within, *NOBODY, self.programs / "postgres", "-D", self.data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the tests
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self.runs, self.data.with_suffix(".log").read_text()
        with suppress(psycopg2.OperationalError):
            return self.ask("SELECT true") == [(True,)]
        return False

    @property
    def runs(self) -> bool:
        """Whether it has been started, and not been stopped."""
        return self._process.poll() is None

    def stop(self, how: int = FAST) -> None:
        """Stop, and wait until all its processes are gone."""
        backends: list[int] = []
        if how == KILLED:
            self._process.send_signal(signal.SIGSTOP)  # so that it makes no more of them
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            backends = [int(pid) for pid in children.read_text().split()]
        for pid in (*backends, self._process.pid):
            os.kill(pid, how)
        self._process.wait(TIMEOUT_SECONDS)
        # One that was just being made is not among those: whoever lives in the data's folder is one of them.
        wait_until(lambda: not any(_lives_in(self.data, process) for process in Path("/proc").glob("[0-9]*")))

    def ask(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser."""
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            return execute(connection, statement, values)

    @property
    def sessions(self) -> list[int]:
        """The processes that work for the service."""
        return self._pids("")

    @property
    def waiting(self) -> list[int]:
        """Those of them that wait for a lock, or for an hour to pass."""
        return self._pids("AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')")

    def _pids(self, condition: str) -> list[int]:
        return [pid for (pid,) in self.ask(f"SELECT pid {_SESSIONS} {condition}")]

    def terminate(self) -> None:
        """End all connections of the service."""
        self.ask(f"SELECT pg_terminate_backend(pid) {_SESSIONS}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the table from being read for as long as the block lasts."""
        with closing(psycopg2.connect(self.dsn)) as connection:
            execute(connection, "LOCK TABLE medmitra.cases")
            yield

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let every query for cases take an hour."""
        self.ask("CREATE POLICY hang ON medmitra.cases AS RESTRICTIVE USING (pg_sleep(3600) IS NOT NULL)")
        try:
            yield
        finally:
            self.ask("DROP POLICY hang ON medmitra.cases")


_SESSIONS = "FROM pg_stat_activity WHERE usename = 'medmitra_cases'"


def _lives_in(folder: Path, process: Path) -> bool:
    with suppress(OSError):
        return (process / "cwd").readlink() == folder
    return False


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Let the processes stand still for as long as the block lasts."""
    _send(signal.SIGSTOP, pids)
    try:
        yield
    finally:
        _send(signal.SIGCONT, pids)


def _send(number: int, pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, number)


@contextmanager
def postgres_with_cases() -> Iterator[Postgres]:
    """A running server of one's own."""
    with open_folder() as folder:
        with embedded_postgres(folder) as dsn, closing(psycopg2.connect(dsn)) as owner:
            owner.autocommit = True
            LAYOUTS["own_table"].create(owner)
            CasesDatabase(LAYOUTS["own_table"], owner, dsn, dsn).add_many([DOCTOR], CASES)
            for setting in ("fsync", "full_page_writes"):
                execute(owner, f"ALTER SYSTEM SET {setting} = off")
            ((data,),) = execute(owner, "SHOW data_directory")
            programs = _program_of(int(Path(data, "postmaster.pid").read_text().split()[0])).parent
        server = Postgres(programs, Path(data))
        server.start()
        try:
            yield server
        finally:
            if server.runs:
                server.stop()


def _program_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()
