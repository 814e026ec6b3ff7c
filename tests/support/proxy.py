"""A server in front of Postgres that can fall silent, as a frozen one or a dead link does."""

import select
import socket
import threading

from psycopg2.extensions import make_dsn, parse_dsn

from tests.support.processes import TIMEOUT_SECONDS


class Proxy:
    """Listens on a TCP port, and forwards what comes to the real server and back, while it is told to.

    Attributes:
        dsn: The connection string through it.
        forwards: Whether it does; connections are accepted in any case.
        accepted: How many it has accepted.
        threads: Its threads.
    """

    def __init__(self, dsn: str) -> None:
        self._upstream = parse_dsn(dsn)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_dsn(dsn, host="127.0.0.1", port=self._listening.getsockname()[1])
        self.forwards = threading.Event()
        self.forwards.set()
        self.accepted = 0
        self.threads = {threading.Thread(target=self._accept, daemon=True)}
        self._open: set[socket.socket] = set()
        for thread in self.threads:
            thread.start()

    def hang_up(self) -> None:
        """End the connections that there are."""
        for connection in list(self._open):
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        self.forwards.set()
        for thread in self.threads:
            thread.join()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
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
            other = {client: server, server: client}
            try:
                while True:
                    for readable in select.select(other, [], [])[0]:
                        patient = self.forwards.wait(TIMEOUT_SECONDS)
                        received = readable.recv(65_536)
                        if not (patient and received):
                            return
                        other[readable].sendall(received)
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
