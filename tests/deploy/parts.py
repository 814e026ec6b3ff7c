"""Runs the files of ``deploy/`` as they are, but for the addresses and paths that a test must choose."""

import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from tests.support.factories import CasesDatabase, execute
from tests.support.paths import ROOT
from tests.support.processes import TIMEOUT_SECONDS, wait_until
from tests.support.programs import AS_NOBODY, accepts_connections, background, free_port, tool

DEPLOY = ROOT / "deploy"
PASSWORD = "made up for the tests"


def adapted(name: str, changes: Mapping[str, str]) -> str:
    """A file of ``deploy/`` with these changes, each to something that is really there."""
    text = (DEPLOY / name).read_text()
    for there, instead in changes.items():
        assert there in text, there
        text = text.replace(there, instead)
    return text


def as_root() -> None:
    """Skip the test for anybody else."""
    if os.geteuid() != 0:
        pytest.skip("only root can do this")


def call(*command: str | Path, status: int = 0) -> str:
    """Run a command to its end; returns what it printed."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert ended.returncode == status, ended.stdout
    return ended.stdout.strip()


def child_of(pid: int) -> int:
    """The one child of a process, once there is one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(children.read_text)
    return int(children.read_text())


@contextmanager
def pgbouncer(folder: Path, clinic: CasesDatabase, changes: Mapping[str, str] | None = None) -> Iterator[str]:
    """PgBouncer in front of the database; yields the service's connection string, by TCP."""
    port, server = free_port(), parse_dsn(clinic.owner_dsn)
    ((user,),) = execute(
        clinic.owner,
        """SELECT format('"%%s" "%%s"', rolname, rolpassword) FROM pg_authid WHERE rolname = %s""",
        ["medmitra_cases"],
    )
    (folder / "userlist.txt").write_text(user + "\n")
    there = f"host={server['host']} port={server['port']} dbname={server['dbname']}"
    (folder / "pgbouncer.ini").write_text(
        adapted(
            "pgbouncer.ini",
            {
                "host=db.example port=5432 dbname=clinic": there,
                "listen_port = 6432": f"listen_port = {port}",
                "/etc/pgbouncer/userlist.txt": str(folder / "userlist.txt"),
                **(changes or {}),
            },
        )
    )
    command = (*AS_NOBODY, tool("pgbouncer"), folder / "pgbouncer.ini")
    with background(
        *command,
        is_ready=lambda: accepts_connections(port),
        log=folder / "pgbouncer.log",
        stop_signal=signal.SIGINT,
    ):
        yield make_dsn(host="127.0.0.1", port=port, dbname="clinic", user="medmitra_cases", password=PASSWORD)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


def get(
    connection: http.client.HTTPConnection, target: str, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send one request on a connection of its own; returns the answer and its body."""
    with closing(connection):
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        return response, response.read()
