"""Two Postgres servers that Patroni manages, with etcd; one is the leader, the other its standby."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import requests
from psycopg2.extensions import make_dsn

from tests.faults.postgres import Postgres, postgres_with_cases
from tests.support.processes import TIMEOUT_SECONDS, frozen, wait_until
from tests.support.programs import AS_NOBODY, background, free_port, tool

# Seconds, and Patroni's minimum for each. If a leader dies, its standby takes over after TTL.
TTL, LOOP_WAIT, RETRY_TIMEOUT = 20, 1, 3

# Between two questions to Patroni, which takes some milliseconds of processor time for each.
PAUSE_SECONDS = 0.1


class Node:
    """A Postgres server with its Patroni."""

    def __init__(self, name: str, data: Path, server: Postgres, etcd: str) -> None:
        self.name = name
        self.port = free_port()
        self._api = f"127.0.0.1:{free_port()}"
        self._data = data
        self._log = data.parent / f"{name}.log"
        self.config = data.parent / f"{name}.json"
        self.config.write_text(
            json.dumps(
                {
                    "scope": "clinic",
                    "name": name,
                    "etcd3": {"host": etcd},
                    "restapi": {"listen": self._api, "connect_address": self._api},
                    "bootstrap": {
                        "dcs": {"ttl": TTL, "loop_wait": LOOP_WAIT, "retry_timeout": RETRY_TIMEOUT}
                    },
                    "postgresql": {
                        "listen": f"127.0.0.1:{self.port}",
                        "connect_address": f"127.0.0.1:{self.port}",
                        "data_dir": str(data),
                        "bin_dir": str(server.programs),
                        "pgpass": str(server.socket_folder / f"{name}.pgpass"),
                        "authentication": {
                            user: {"username": "postgres"} for user in ("superuser", "replication")
                        },
                        "parameters": {"unix_socket_directories": ""},
                        "pg_hba": [
                            f"host {database} all 127.0.0.1/32 trust" for database in ("all", "replication")
                        ],
                    },
                }
            )
        )

    @contextmanager
    def run(self) -> Iterator[None]:
        """Run until the block ends, or until it is killed."""
        with background(*AS_NOBODY, tool("patroni"), self.config, log=self._log) as self._process:
            yield

    def has_role(self, role: str) -> bool:
        """Return whether the server runs as ``primary`` or ``replica``."""
        with suppress(requests.ConnectionError):
            return requests.get(f"http://{self._api}/{role}", timeout=TIMEOUT_SECONDS).ok
        return False

    def kill_postgres(self) -> None:
        """Kill Postgres alone. Its Patroni starts it again."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children")
        with frozen(postmaster):  # so that it starts no more processes
            for pid in (*map(int, children.read_text().split()), postmaster):
                os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill Patroni and Postgres, as if their machine had failed."""
        self._process.kill()
        self._process.wait(TIMEOUT_SECONDS)
        self.kill_postgres()


class Cluster:
    """The two nodes."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    def service_dsn(self, **parameters: str) -> str:
        """Return a connection string of the service's role that names both servers."""
        ports = ",".join(str(node.port) for node in self.nodes)
        return make_dsn(
            host="127.0.0.1,127.0.0.1", port=ports, user="medmitra_cases", dbname="postgres", **parameters
        )

    def roles(self) -> tuple[Node, Node]:
        """Wait until one server is the leader and the other its standby, and return them in this order."""

        first, second = self.nodes
        found: list[tuple[Node, Node]] = []

        def have_roles() -> bool:
            pairs = ((first, second), (second, first))
            found[:] = [pair for pair in pairs if pair[0].has_role("primary") and pair[1].has_role("replica")]
            return len(found) == 1

        wait_until(have_roles, PAUSE_SECONDS)
        return found[0]

    def switch_over(self) -> None:
        """Exchange the roles, as an operator does before work on the leader's machine."""
        leader, standby = self.roles()
        options = ("--candidate", standby.name, "--force")
        command = (tool("patronictl"), "-c", leader.config, "switchover", *options)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT_SECONDS)
        assert self.roles() == (standby, leader)


@contextmanager
def patroni_cluster() -> Iterator[Cluster]:
    """Run two servers with the cases of ``postgres_with_cases`` until the block ends."""
    tool("patroni")
    client, peer = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with postgres_with_cases() as server, ExitStack() as stack:
        server.stop()
        folder, owner = server.data.parent, server.data.stat()
        standby_data = folder / "standby"
        standby_data.mkdir(mode=0o700)
        os.chown(standby_data, owner.st_uid, owner.st_gid)
        etcd = (
            *(tool("etcd"), "--data-dir", folder / "etcd", "--initial-cluster", f"default=http://{peer}"),
            *("--listen-client-urls", f"http://{client}", "--advertise-client-urls", f"http://{client}"),
            *("--listen-peer-urls", f"http://{peer}", "--initial-advertise-peer-urls", f"http://{peer}"),
        )
        stack.enter_context(background(*etcd, log=folder / "etcd.log", is_ready=lambda: _is_healthy(client)))
        nodes = [
            Node(name, data, server, client)
            for name, data in (("first", server.data), ("second", standby_data))
        ]
        stack.enter_context(nodes[0].run())
        wait_until(lambda: nodes[0].has_role("primary"), PAUSE_SECONDS)
        stack.enter_context(nodes[1].run())
        cluster = Cluster(nodes)
        cluster.roles()
        yield cluster


def _is_healthy(etcd: str) -> bool:
    with suppress(requests.ConnectionError):
        return requests.get(f"http://{etcd}/health", timeout=TIMEOUT_SECONDS).ok
    return False
