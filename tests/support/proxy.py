"""A TCP proxy in front of Postgres that can stop forwarding, like a frozen server or a dead link."""

import select
import socket
import threading
from contextlib import suppress

from psycopg2.extensions import make_dsn, parse_dsn

from tests.support.processes import TIMEOUT_SECONDS


class Proxy:
    """Listens on a TCP port, and forwards bytes to Postgres and back while ``forwards`` is set.

    Attributes:
        dsn: The connection string of the database through the proxy.
        forwards: Set while the proxy forwards. It accepts connections in any case.
        accepted: The number of connections that it has accepted.
        threads: The threads of the proxy.
    """

    def __init__(self, dsn: str) -> None:
        self._upstream = parse_dsn(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_dsn(dsn, host="127.0.0.1", port=self._listener.getsockname()[1])
        self.forwards = threading.Event()
        self.forwards.set()
        self.accepted = 0
        self.threads = {threading.Thread(target=self._accept, daemon=True)}
        self._open: set[socket.socket] = set()
        for thread in self.threads:
            thread.start()

    def forward_to(self, dsn: str) -> None:
        """Forward later connections to another server or database, as after a name has moved."""
        self._upstream = parse_dsn(dsn)

    def hang_up(self) -> None:
        """Shut down the open connections."""
        for connection in list(self._open):
            with suppress(OSError):  # the other side has just closed it
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Shut down all connections and stop."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        self.forwards.set()
        for thread in self.threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.add(client)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self.threads = {*self.threads, thread}
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        self.forwards.wait(TIMEOUT_SECONDS)
        with client, self._connect() as server:
            peers = {client: server, server: client}
            try:
                while True:
                    for readable in select.select(peers, [], [])[0]:
                        forwards = self.forwards.wait(TIMEOUT_SECONDS)
                        received = readable.recv(65_536)
                        if not (forwards and received):
                            return
                        peers[readable].sendall(received)
            except OSError:
                return
            finally:
                self._open.discard(client)

    def _connect(self) -> socket.socket:
        host, port = self._upstream["host"], self._upstream.get("port", "5432")
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{host}/.s.PGSQL.{port}")
        return connection
