"""A Postgres server with 50 cases of one doctor, which tests stop, kill, lock and freeze."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.testing.postgres import open_folder
from tests.support.factories import DOCTOR, LAYOUTS, CasesDatabase, execute
from tests.support.processes import TIMEOUT_SECONDS, frozen, wait_until
from tests.support.programs import AS_NOBODY

CASES = 50

# FAST ends the sessions first, IMMEDIATE writes no data, KILLED sends the clients no message.
FAST, IMMEDIATE, KILLED = signal.SIGINT, signal.SIGQUIT, signal.SIGKILL


class Postgres:
    """The server; it listens on a Unix socket, and on an address that it or ``start`` is given."""

    def __init__(self, programs: Path, data: Path, port: int = 5432, listen: str = "") -> None:
        self.programs = programs
        self.data = data
        self.port = port
        self.listen = listen
        self.socket_folder = data.parent / "socket"
        self.dsn = make_dsn(host=str(self.socket_folder), port=port, user="postgres", dbname="postgres")
        self.service_dsn = make_dsn(self.dsn, user="medmitra_cases")

    def start(self, *prefix: str, listen: str = "") -> None:
        """Start, and wait until it responds; the prefix is the start of its command line."""
        options = (
            "-k",
            self.socket_folder,
            "-p",
            str(self.port),
            "-c",
            f"listen_addresses={listen or self.listen}",
        )
        with self.data.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [*prefix, *AS_NOBODY, self.programs / "postgres", "-D", self.data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C must not stop it before the tests end
            )
        wait_until(self._responds)

    def _responds(self) -> bool:
        assert self.is_running, self.data.with_suffix(".log").read_text()
        with suppress(psycopg2.OperationalError):
            return self.query("SELECT true") == [(True,)]
        return False

    @property
    def is_running(self) -> bool:
        """Return whether it was started and not stopped."""
        return self._process.poll() is None

    def stop(self, stop_signal: int = FAST) -> None:
        """Stop, and wait until all its processes have ended."""
        pids = [self._process.pid]
        if stop_signal == KILLED:
            self._process.send_signal(signal.SIGSTOP)  # so that it forks no more backends
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            pids = [*map(int, children.read_text().split()), *pids]
        for pid in pids:
            os.kill(pid, stop_signal)
        self._process.wait(TIMEOUT_SECONDS)
        # The list lacks a backend that was just being forked. All of them run in the data folder.
        wait_until(lambda: not any(_runs_in(self.data, process) for process in Path("/proc").glob("[0-9]*")))

    def query(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser."""
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            return execute(connection, statement, values)

    @property
    def backends(self) -> list[int]:
        """Return the pids of the backends that work for the service."""
        return self._pids("")

    @property
    def waiting_backends(self) -> list[int]:
        """Return the pids of those backends that wait for a lock or in ``pg_sleep``."""
        return self._pids("AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')")

    def _pids(self, condition: str) -> list[int]:
        return [pid for (pid,) in self.query(f"SELECT pid {_FROM_BACKENDS} {condition}")]

    def terminate_backends(self) -> None:
        """End all connections of the service."""
        self.query(f"SELECT pg_terminate_backend(pid) {_FROM_BACKENDS}")

    @contextmanager
    def locked_table(self) -> Iterator[None]:
        """Lock the table until the block ends, so that every query for cases waits."""
        with closing(psycopg2.connect(self.dsn)) as connection:
            execute(connection, "LOCK TABLE medmitra.cases")
            yield

    @contextmanager
    def hanging_queries(self) -> Iterator[None]:
        """Make every query for cases take an hour until the block ends."""
        self.query("CREATE POLICY hang ON medmitra.cases AS RESTRICTIVE USING (pg_sleep(3600) IS NOT NULL)")
        try:
            yield
        finally:
            self.query("DROP POLICY hang ON medmitra.cases")

    def frozen_backends(self, count: int | None = None) -> AbstractContextManager[None]:
        """Stop the service's backends, or only so many of them, with SIGSTOP until the block ends."""
        return frozen(*self.backends[:count])


_FROM_BACKENDS = "FROM pg_stat_activity WHERE usename = 'medmitra_cases'"


def _runs_in(folder: Path, process: Path) -> bool:
    with suppress(OSError):
        return (process / "cwd").readlink() == folder
    return False


@contextmanager
def postgres_with_cases() -> Iterator[Postgres]:
    """Run a new server with the cases until the block ends."""
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
            if server.is_running:
                server.stop()


def _program_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()
