"""Waitress's listeners, set up to stand behind a reverse proxy."""

import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from waitress.server import BaseWSGIServer, create_server

from medmitra_cases.server.channel import Channel
from medmitra_cases.server.sockets import BACKLOG

WsgiApp = Callable[..., Iterable[bytes]]


def add_listeners(
    app: WsgiApp,
    sockets: Sequence[socket.socket],
    io_map: dict[int, Any],
    *,
    counted: bool,
    threads: int,
    max_connections: int,
    queue_excess: bool,
    idle_seconds: int,
) -> list[Any]:
    """Let waitress accept connections.

    Args:
        app: The WSGI application that answers.
        sockets: Where: listening sockets, either all of TCP or all of Unix.
        io_map: What the I/O loop looks after, by descriptor; the listeners come in.
        counted: Whether the requests count in the metrics.
        threads: How many requests are worked on at once.
        max_connections: How many clients may be connected at once.
        queue_excess: Whether more wait in the backlog, once ``io_map`` has that many altogether; else they
            are turned away.
        idle_seconds: How long an idle connection stays open.

    Returns:
        Waitress's listeners, with what their channels need to know: ``counted`` and ``draining``.
    """
    known = set(io_map)
    create_server(
        app,
        map=io_map,
        sockets=sockets,
        backlog=BACKLOG,
        threads=threads,
        channel_timeout=idle_seconds,
        ident="",  # no Server header: it tells strangers what to look for
        # Only the proxy on this machine may name the client; from others the header is dropped.
        trusted_proxy="localhost" if sockets[0].family == socket.AF_UNIX else "127.0.0.1",
        trusted_proxy_headers={"x-forwarded-for"},
        clear_untrusted_proxy_headers=True,
        connection_limit=max_connections if queue_excess else sys.maxsize,
        max_request_header_size=262_144,  # bytes; more is answered with 431
        max_request_body_size=65_536,  # bytes; no GET needs that much, more is answered with 413
        # Bytes of unsent output at which a long answer waits for its reader. Twice as many may be held.
        outbuf_high_watermark=2 << 20,
        # Bytes of unsent output held in memory; waitress writes more than that to a temporary file, and
        # patient data does not belong on disk.
        outbuf_overflow=1 << 30,
    )
    # One for each socket: localhost may be two addresses.
    new = [found for descriptor, found in io_map.items() if descriptor not in known]
    listeners = [found for found in new if isinstance(found, BaseWSGIServer)]
    for listener in listeners:
        listener.channel_class = Channel
        listener.counted = counted
        listener.draining = False
        listener.accept = partial(_accept, listener, sys.maxsize if queue_excess else max_connections)
    return listeners


def _accept(listener: Any, reject_from: int) -> Any:
    """Accept a connection if there is room for it, and if no other process on the same socket was faster."""
    # Whoever starts another process on it may make the socket blocking for all, as systemd does unless told
    # NonBlocking=yes: who loses the race would then wait for the next client, and do nothing else.
    listener.socket.setblocking(False)
    accepted = type(listener).accept(listener)
    if accepted is not None and len(listener.active_channels) >= reject_from:
        accepted[0].close()
        return None
    return accepted
