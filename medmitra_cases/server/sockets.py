"""The listening sockets: inherited from systemd, or bound here; and how many connections they may have."""

import os
import resource
import socket
from collections.abc import Iterable, MutableMapping

from medmitra_cases.errors import ListenError
from medmitra_cases.settings import is_loopback

# sd_listen_fds(3): the first inherited descriptor; the others follow without a gap.
FIRST_DESCRIPTOR = 3

# Connections that may wait to be accepted; the kernel's maximum is net.core.somaxconn.
BACKLOG = 1024

# The maximum number of open client connections, if there are descriptors for them; more wait in the backlog.
MAX_CONNECTIONS = 1_000

# Descriptors for everything else, except the two of each connection to Postgres.
RESERVED = 100


def inherited_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Take the listening sockets that the parent process passed on (sd_listen_fds(3)).

    Args:
        environ: The environment of the process; the variables of the protocol are removed.

    Returns:
        The sockets; none if none are meant for this process.

    Raises:
        ListenError: The descriptors are not listening stream sockets, all of TCP or all of Unix.
    """
    meant_for, count, _ = (environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if meant_for != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdigit()):
        raise ListenError("LISTEN_FDS is not a number of descriptors to listen on")
    sockets = [_inherited(FIRST_DESCRIPTOR + index) for index in range(int(count))]
    if len({inherited.family == socket.AF_UNIX for inherited in sockets}) > 1:
        raise ListenError("TCP and Unix sockets were inherited to listen on; one process serves either")
    return sockets


def _inherited(descriptor: int) -> socket.socket:
    try:
        inherited = socket.socket(fileno=descriptor)
        listening = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ListenError(f"descriptor {descriptor}, to listen on: {error.strerror}") from error
    if not listening or inherited.type != socket.SOCK_STREAM:
        raise ListenError(f"descriptor {descriptor}, to listen on, is no listening stream socket")
    inherited.set_inheritable(False)
    return inherited


def bound_sockets(listen: str, *, reuse_port: bool) -> list[socket.socket]:
    """Bind and listen on an address.

    Args:
        listen: ``HOST:PORT``; the host is a name or an address, an IPv6 address in brackets.
        reuse_port: Whether other processes of this user may listen there, too (``SO_REUSEPORT``).

    Returns:
        One socket for each address that the host resolves to.

    Raises:
        ListenError: The address is in use, belongs to no interface of this machine, or does not resolve.
    """
    host, _, port = listen.rpartition(":")
    try:
        resolved = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(f"cannot listen on {listen}: no such host") from error
    sockets: list[socket.socket] = []
    try:
        # A host may resolve to the same address twice.
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in resolved):
            sockets.append(
                socket.create_server(
                    (str(address[0]), int(address[1])), family=family, backlog=BACKLOG, reuse_port=reuse_port
                )
            )
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise ListenError(f"cannot listen on {listen}: {os.strerror(error.errno or 0)}") from error
    return sockets


def only_local(sockets: Iterable[socket.socket]) -> bool:
    """Tell whether only this machine can connect.

    Args:
        sockets: Listening sockets.

    Returns:
        Whether each of them is a Unix socket, or listens on a loopback address.
    """
    return all(
        listening.family == socket.AF_UNIX or is_loopback(listening.getsockname()[0]) for listening in sockets
    )


def max_connections(database_connections: int) -> int:
    """Raise the limit of file descriptors as far as needed and allowed.

    Without a free descriptor, accept() would fail again and again without a pause.

    Args:
        database_connections: The maximum number of connections to Postgres.

    Returns:
        The number of client connections that the descriptors are enough for.
    """
    others = RESERVED + 2 * database_connections
    wanted = MAX_CONNECTIONS + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(MAX_CONNECTIONS, soft - others), 1)


def url_of(listening: socket.socket) -> str:
    """Return the address of a listening socket, as the start line and the log have it.

    Args:
        listening: A listening socket.

    Returns:
        ``http://127.0.0.1:8000`` or ``unix:/run/medmitra-cases/http.sock``, for example.
    """
    address = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{address}"
    host, port = address[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
