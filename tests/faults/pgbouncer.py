"""PgBouncer in transaction mode with a single connection to each database, which all clients share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg2.extensions import parse_dsn

from tests.support.programs import NOBODY, accepts, background, free_port, tool

_INI = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 1
"""


@contextmanager
def pgbouncer(folder: Path, server_dsn: str) -> Iterator[int]:
    """Run it in front of a server; yields its port. The service's role gets in."""
    port, server = free_port(), parse_dsn(server_dsn)
    (folder / "users.txt").write_text(f'"medmitra_cases" "{server.get("password", "")}"\n')
    ini = folder / "pgbouncer.ini"
    ini.write_text(_INI.format(folder=folder, port=port, host=server["host"], server_port=server["port"]))
    command = (*NOBODY, tool("pgbouncer"), ini)
    with background(*command, up=lambda: accepts(port), log=folder / "pgbouncer.log"):
        yield port
