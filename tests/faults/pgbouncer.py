"""Runs PgBouncer in transaction mode; all clients share one connection to each database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg2.extensions import parse_dsn

from tests.support.programs import AS_NOBODY, accepts_connections, background, free_port, tool

_INI = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = {listen}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 1
{more}
"""


@contextmanager
def pgbouncer(folder: Path, server_dsn: str, *, listen: str = "127.0.0.1", more: str = "") -> Iterator[int]:
    """Run PgBouncer in front of a server; yield its port. Only the service's role may connect."""
    port, server = free_port(), parse_dsn(server_dsn)
    (folder / "users.txt").write_text(f'"medmitra_cases" "{server.get("password", "")}"\n')
    ini = folder / "pgbouncer.ini"
    ini.write_text(
        _INI.format(
            folder=folder,
            port=port,
            host=server["host"],
            server_port=server["port"],
            listen=f"127.0.0.1, {listen}",
            more=more,
        )
    )
    command = (*AS_NOBODY, tool("pgbouncer"), ini)
    with background(*command, is_ready=lambda: accepts_connections(port), log=folder / "pgbouncer.log"):
        yield port
