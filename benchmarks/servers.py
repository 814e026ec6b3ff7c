"""The servers that are compared: how each is started, as in production, and how it is asked for cases."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.database import PEER_ROLE, SERVICE_ROLE, Database, doctor_id
from benchmarks.run import CHECKOUT, BenchmarkError, environ_with

PEERS_FOLDER = Path(__file__).parent / "peers"
BIN = Path(sys.executable).parent
COMMAND = BIN / "medmitra-cases"

START_TIMEOUT_SECONDS = 20
STOP_TIMEOUT_SECONDS = 10
RESPONSE_TIMEOUT_SECONDS = 20
POLL_SECONDS = 0.005

# systemd's protocol: descriptor 3 is the listening socket, and LISTEN_PID names the process it is meant for.
WITH_SOCKET = ("sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&0 </dev/null', "sh")


@dataclass(frozen=True, eq=False)
class Server:
    """A server and how it is started.

    Attributes:
        name: Its name in the tables.
        command: The command. The environment contains the port and the number of processes.
        role: The role that it logs in to Postgres as.
        one_core: Whether each process is bound to one core.
        forks: Whether the command starts all processes. Otherwise each is started, on a shared socket.
        environ: Further environment variables.
    """

    name: str
    command: tuple[str | Path, ...]
    role: str = PEER_ROLE
    one_core: bool = False
    forks: bool = True
    environ: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the name."""
        return self.name


OURS = Server("medmitra-cases", (COMMAND, "serve"), role=SERVICE_ROLE, forks=False)
BOUND = replace(OURS, name="medmitra-cases, bound to a core", one_core=True)
BARE = Server("bare WSGI", (sys.executable, PEERS_FOLDER / "bare.py"))
FASTIFY = Server("Fastify + pg", ("node", PEERS_FOLDER / "fastify" / "server.js"))
_UVICORN = (BIN / "uvicorn", f"--app-dir={PEERS_FOLDER}", "--no-access-log", "--log-level=warning")
FASTAPI = Server("FastAPI + asyncpg", (*_UVICORN, "fastapi_app:app"))
# Requests/s of Granian ÷ uvicorn was 1.08 for 50 cases and 1.0 for 1,000; the p99, 1.4 and 1.6.
_GRANIAN = (BIN / "granian", f"--working-dir={PEERS_FOLDER}", "--interface=asgi", "--loop=uvloop", "--http=1")
LITESTAR = Server(
    "Litestar + msgspec + asyncpg", (*_GRANIAN, "--no-ws", "--log-level=warning", "litestar_app:app")
)


class Service(NamedTuple):
    """A running server: its port on 127.0.0.1, and the id of its first process."""

    port: int
    pid: int

    def url(self, doctor: int, query: str = "") -> str:
        """Return the URL of a doctor's cases, with further parameters such as ``&limit=5``."""
        return f"http://127.0.0.1:{self.port}{path(doctor, query)}"

    def get(self, doctor: int, query: str = "", etag: str = "") -> tuple[http.client.HTTPResponse, bytes]:
        """Request a doctor's cases on a new connection; return the response and its body.

        Raises:
            BenchmarkError: The status is not 200 or, with an ETag, not 304.
        """
        host = http.client.HTTPConnection("127.0.0.1", self.port, timeout=RESPONSE_TIMEOUT_SECONDS)
        with closing(host) as connection:
            connection.request("GET", path(doctor, query), headers={"If-None-Match": etag} if etag else {})
            response = connection.getresponse()
            body = response.read()
        if response.status != (304 if etag else 200):
            raise BenchmarkError(f"unexpected status {response.status} from {self.url(doctor, query)}")
        return response, body


def path(doctor: int, query: str = "") -> str:
    """Return the path and the query string of a doctor's cases."""
    return f"/cases/all_cases?user_id={doctor_id(doctor)}{query}"


@contextmanager
def running(database: Database, *servers: Server, processes: int = 1) -> Iterator[dict[Server, Service]]:
    """Run servers during the block.

    Args:
        database: The database that they read.
        *servers: The servers.
        processes: The number of processes of each.

    Yields:
        The services, once each of them responds. The warm-up gives a second process the time to start.

    Raises:
        BenchmarkError: One does not start.
    """
    with ExitStack() as stack:
        yield {server: _start(stack, server, database, processes) for server in servers}


def _start(stack: ExitStack, server: Server, database: Database, processes: int) -> Service:
    log = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115, the stack closes it
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
    port = listener.getsockname()[1]
    shared = processes > 1 and not server.forks
    if not shared:
        listener.close()  # the server binds the port itself
    environ = {
        "DATABASE_URL": database.url(server.role),
        "MEDMITRA_LISTEN": f"127.0.0.1:{port}",
        "MEDMITRA_ADMIN_LISTEN": "off",  # otherwise each process needs its own admin port
        "UVICORN_PORT": str(port),
        "UVICORN_WORKERS": str(processes),
        "GRANIAN_PORT": str(port),
        "GRANIAN_WORKERS": str(processes),
        "NODE_ENV": "production",
        "PORT": str(port),
        "PROCESSES": str(processes),
        **server.environ,
    }
    cores = sorted(os.sched_getaffinity(0))
    started = []
    for number in range(processes if shared else 1):
        core = str(cores[number % len(cores)])
        command = (
            *(WITH_SOCKET if shared else ()),
            *(("taskset", "--cpu-list", core) if server.one_core else ()),
            *server.command,
        )
        process = subprocess.Popen(  # noqa: S603, the commands are ours
            command,
            stdin=listener.fileno() if shared else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=CHECKOUT,
            env=environ_with(environ),
            start_new_session=True,  # a process group, so that its workers end with it
        )
        stack.callback(_stop, process)
        started.append(process)
    service = Service(port, started[0].pid)
    give_up_at = time.monotonic() + START_TIMEOUT_SECONDS
    while not _responds(service):
        if time.monotonic() > give_up_at or any(process.poll() is not None for process in started):
            log.seek(0)
            raise BenchmarkError(f"{server} does not start: {' / '.join(log.read().splitlines()[-4:])}")
        time.sleep(POLL_SECONDS)
    return service


def _responds(service: Service) -> bool:
    try:
        service.get(0)
    except BenchmarkError:  # for example 401, because it requires a token
        return True
    except (OSError, http.client.HTTPException):
        return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
