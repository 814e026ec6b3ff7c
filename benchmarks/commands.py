"""The servers that are measured and the commands that run them, each as in production."""

import os
import sys
from pathlib import Path

from benchmarks.database import url_of_peer
from benchmarks.tools import FASTIFY

OURS = "medmitra-cases"
UNBOUND = "medmitra-cases, not bound to a core"
FASTAPI = "FastAPI + asyncpg"
FASTIFY_PG = "Fastify + pg"
BARE = "bare WSGI"
WITHOUT_ROW_SECURITY = "medmitra-cases without row level security"
WITH_TOKENS = "medmitra-cases with tokens (HS256)"

# Of no use but to benchmarks.
SECRET = "benchmark-secret-of-at-least-32-bytes"  # noqa: S105

CHECKOUT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).with_name("medmitra-cases")

# systemd's protocol: the listening socket is descriptor 3, and LISTEN_PID names the process it is meant for.
WITH_SOCKET = ("sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&0 </dev/null', "sh")


def command_of(server: str, port: int, processes: int, number: int) -> list[str]:
    """Write the command that runs a server. Those that start no further processes themselves run in one.

    Args:
        server: One of the names above.
        port: Where it is to listen on 127.0.0.1.
        processes: How many processes are to share that address.
        number: Which of them this one is, counted from 0, where one command does not start them all.

    Returns:
        The command; it also needs ``environ_of``.
    """
    # As the README has it: each process on a core of its own. The peers' processes have one busy thread each,
    # which need not be told to stay where it is.
    cores = sorted(os.sched_getaffinity(0))
    bound = ["taskset", "--cpu-list", str(cores[number % len(cores)])]
    if server in (OURS, WITH_TOKENS):
        return [*bound, str(COMMAND), "serve"]
    if server == WITHOUT_ROW_SECURITY:
        return [*bound, sys.executable, "-m", "benchmarks.peers.without_row_security"]
    if server == UNBOUND:
        return [str(COMMAND), "serve"]
    if server == BARE:
        return [*bound, sys.executable, "-m", "benchmarks.peers.bare"]
    if server == FASTIFY_PG:
        return ["node", str(FASTIFY / "server.js")]
    uvicorn = [sys.executable, "-m", "uvicorn", "benchmarks.peers.fastapi_app:app", "--no-access-log"]
    return [*uvicorn, "--log-level", "warning", "--port", str(port), "--workers", str(processes)]


def environ_of(server: str, database_url: str, port: int, processes: int) -> dict[str, str]:
    """Make the environment that a server needs.

    Args:
        server: One of the names above.
        database_url: The database it reads, as the service does.
        port: As for ``command_of``.
        processes: As for ``command_of``.

    Returns:
        Environment variables by name.
    """
    # Every other setting of the service has its default, whatever this process was started with.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEDMITRA_")}
    bound_by_row_security = server in (OURS, UNBOUND, WITH_TOKENS)
    return {
        **inherited,
        **({"MEDMITRA_JWT_SECRET": SECRET} if server == WITH_TOKENS else {}),
        "DATABASE_URL": database_url if bound_by_row_security else url_of_peer(database_url),
        "MEDMITRA_LISTEN": f"127.0.0.1:{port}",
        "MEDMITRA_ADMIN_LISTEN": "off",  # or each process would need a port of its own
        "NODE_ENV": "production",
        "PORT": str(port),
        "PROCESSES": str(processes),
    }
