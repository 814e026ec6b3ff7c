"""Waitress's listeners, configured for a reverse proxy in front."""

import math
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from waitress.server import BaseWSGIServer, create_server

from medmitra_cases.server.channel import Channel
from medmitra_cases.server.greenlets import GreenletDispatcher
from medmitra_cases.server.output_limits import SHORT_BYTES, OutputLimits
from medmitra_cases.server.sockets import BACKLOG
from medmitra_cases.web import client_address

WsgiApp = Callable[..., Iterable[bytes]]

# The kernel keeps 512 kB of unsent output for a client. By default it keeps 4 MB, counted as memory of the
# service in a cgroup. A Unix socket has no such option: it keeps 200 kB.
_SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 512 << 10),
]


def add_listeners(
    app: WsgiApp,
    sockets: Sequence[socket.socket],
    io_map: dict[int, Any],
    *,
    route_of: Callable[[str], str] | None,
    cors_origins: Sequence[str],
    places: int,
    in_threads: bool,
    max_connections: int,
    queue_excess: bool,
    idle_seconds: int,
) -> list[Any]:
    """Accept connections in waitress's I/O loop.

    Args:
        app: The WSGI application.
        sockets: The listening sockets, either all of TCP or all of Unix.
        io_map: The I/O loop's objects by descriptor; the listeners are added.
        route_of: Returns the route in the metrics for the path of a request; None does not count requests.
        cors_origins: The origins whose pages may read the server's own errors.
        places: The number of requests that run at once.
        in_threads: Whether each runs in a thread of its own, and not in a greenlet of this thread.
        max_connections: The maximum number of open connections.
        queue_excess: Whether more connections wait in the backlog once ``io_map`` has that many altogether;
            otherwise they are closed.
        idle_seconds: Seconds that a connection may be idle.

    Returns:
        Waitress's listeners, with four attributes for their channels: ``route_of``, ``cors_origins``,
        ``output_limits`` and ``draining``.
    """
    known = set(io_map)
    dispatcher = None if in_threads else GreenletDispatcher(io_map, places)
    create_server(
        partial(_call_with_client, app),
        map=io_map,
        sockets=sockets,
        backlog=BACKLOG,
        threads=places,
        _dispatcher=dispatcher,
        channel_timeout=idle_seconds,
        ident="",  # no Server header: it would tell attackers which software this is
        # Waitress can trust one spelling of one address only; _call_with_client does this instead.
        clear_untrusted_proxy_headers=False,
        connection_limit=max_connections if queue_excess else sys.maxsize,
        max_request_header_size=32_768,  # bytes; more gets a 431
        max_request_body_size=65_536,  # bytes; no GET needs that much, more gets a 413
        # Unsent bytes above which waitress would let a response wait. Channel decides that instead.
        outbuf_high_watermark=SHORT_BYTES,
        # Bytes of unsent output in memory; waitress writes more than that to a temporary file, and patient
        # data must not be written to disk.
        outbuf_overflow=1 << 30,
    )
    # One for each socket: localhost may be two addresses.
    new = [found for descriptor, found in io_map.items() if descriptor not in known]
    listeners = [found for found in new if isinstance(found, BaseWSGIServer)]
    output_limits = OutputLimits(listeners, places)
    if dispatcher is not None:
        dispatcher.wake = listeners[0].trigger.pull_trigger
    for listener in listeners:
        if dispatcher is not None:
            listener.pull_trigger = _do_nothing  # after each response: the loop runs on the same thread
        listener.adj.socket_options = _SOCKET_OPTIONS
        listener.channel_class = Channel
        listener.route_of = route_of
        listener.cors_origins = cors_origins
        listener.output_limits = output_limits
        listener.draining = False
        listener.next_channel_cleanup = math.inf  # Server does it, because waitress uses the wall clock
        listener.accept = partial(_accept, listener, sys.maxsize if queue_excess else max_connections)
    return listeners


def _do_nothing() -> None:
    pass


def _call_with_client(app: WsgiApp, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Call the application; ``REMOTE_ADDR`` is the client, also behind the proxy on this machine."""
    environ["REMOTE_ADDR"] = client_address(environ["REMOTE_ADDR"], environ.get("HTTP_X_FORWARDED_FOR", ""))
    return app(environ, start_response)


def _accept(listener: Any, reject_from: int) -> Any:
    """Accept a connection, unless there are too many, or another process on the same socket was faster."""
    # Another process on the socket may make it blocking for all, as systemd does without NonBlocking=yes.
    # A process that loses the race would then wait for the next client, and do nothing else.
    listener.socket.setblocking(False)
    accepted = type(listener).accept(listener)
    if accepted is not None and len(listener.active_channels) >= reject_from:
        accepted[0].close()
        return None
    return accepted
