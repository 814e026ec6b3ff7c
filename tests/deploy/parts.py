"""Runs the files of ``deploy/``; tests replace only addresses, paths and the settings that they test."""

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


def with_replacements(name: str, replacements: Mapping[str, str]) -> str:
    """Return the text of a file of ``deploy/`` after replacements; fail if it lacks a replaced text."""
    text = (DEPLOY / name).read_text()
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def require_root() -> None:
    """Skip the test if it does not run as root."""
    if os.geteuid() != 0:
        pytest.skip("this test must run as root")


def run_command(*command: str | Path) -> str:
    """Run a command until it ends successfully; return its output."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout.strip()


def child_pid(pid: int) -> int:
    """Wait until a process has a child, and return the child's pid."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(children.read_text)
    return int(children.read_text())


def write_userlist(folder: Path, database: CasesDatabase) -> None:
    """Write the role's password for PgBouncer as Postgres stores it."""
    ((user,),) = execute(
        database.owner,
        """SELECT format('"%%s" "%%s"', rolname, rolpassword) FROM pg_authid WHERE rolname = %s""",
        ["medmitra_cases"],
    )
    (folder / "userlist.txt").write_text(user + "\n")


@contextmanager
def pgbouncer(
    folder: Path, database: CasesDatabase, replacements: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run PgBouncer in front of the database; yield the service's connection string through it."""
    with pgbouncer_process(folder, database, replacements) as (dsn, _):
        yield dsn


@contextmanager
def pgbouncer_process(
    folder: Path, database: CasesDatabase, replacements: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run PgBouncer in front of the database; yield the connection string through it, and its process."""
    port, server = free_port(), parse_dsn(database.owner_dsn)
    write_userlist(folder, database)
    upstream = f"host={server['host']} port={server['port']} dbname={server['dbname']}"
    (folder / "pgbouncer.ini").write_text(
        with_replacements(
            "pgbouncer.ini",
            {
                "host=db.example port=5432 dbname=clinic": upstream,
                "listen_port = 6432": f"listen_port = {port}",
                "/etc/pgbouncer/userlist.txt": str(folder / "userlist.txt"),
                **(replacements or {}),
            },
        )
    )
    command = (*AS_NOBODY, tool("pgbouncer"), folder / "pgbouncer.ini")
    with background(
        *command,
        log=folder / "pgbouncer.log",
        is_ready=lambda: accepts_connections(port),
        stop_signal=signal.SIGINT,
    ) as process:
        dsn = make_dsn(host="127.0.0.1", port=port, dbname="clinic", user="medmitra_cases", password=PASSWORD)
        yield dsn, process


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

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
    """Send one GET request and close the connection; return the response and its body."""
    with closing(connection):
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        return response, response.read()
