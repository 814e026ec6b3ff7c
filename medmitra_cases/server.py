"""Serves the application with waitress, set up to stand behind a reverse proxy."""

import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from waitress.server import BaseWSGIServer, create_server

from medmitra_cases.channel import Channel
from medmitra_cases.listening import BACKLOG
from medmitra_cases.settings import Settings


class Server:
    """A waitress server that accepts connections; ``run`` answers them.

    Attributes:
        urls: The addresses listened on, such as ``http://127.0.0.1:8000``, with the port really taken.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], settings: Settings, sockets: Sequence[socket.socket]
    ) -> None:
        """Accept connections.

        Args:
            app: The WSGI application.
            settings: ``threads`` and ``keepalive_seconds`` are used.
            sockets: Where to accept them: listening sockets, either all of TCP or all of Unix.
        """
        # It warns of every request that waits for a thread; under load that is most of them.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        dispatchers: dict[int, Any] = {}
        self._waitress = create_server(
            app,
            map=dispatchers,
            sockets=sockets,
            backlog=BACKLOG,
            threads=settings.threads,
            channel_timeout=settings.keepalive_seconds,
            ident="",  # no Server header: it tells strangers what to look for
            # Only the proxy on this machine may name the client; from others the header is dropped.
            trusted_proxy="localhost" if sockets[0].family == socket.AF_UNIX else "127.0.0.1",
            trusted_proxy_headers={"x-forwarded-for"},
            clear_untrusted_proxy_headers=True,
            connection_limit=1000,  # connections; further clients wait unanswered in the backlog
            asyncore_use_poll=True,  # select() crashes the server above descriptor 1,024
            max_request_header_size=262_144,  # bytes; more is answered with 431
            max_request_body_size=65_536,  # bytes; no GET needs that much, more is answered with 413
            # Bytes of unsent output at which a long answer waits for its reader. Twice as many may be held.
            outbuf_high_watermark=2 << 20,
            # Bytes of unsent output held in memory; waitress writes more than that to a temporary file, and
            # patient data does not belong on disk.
            outbuf_overflow=1 << 30,
        )
        # One for each socket: localhost may be two addresses.
        listeners = [found for found in dispatchers.values() if isinstance(found, BaseWSGIServer)]
        for listener in listeners:
            listener.channel_class = Channel
        self.urls = [_url(accepting) for accepting in sockets]

    def run(self) -> None:
        """Answer requests until ``KeyboardInterrupt`` or ``SystemExit`` is raised; then return.

        Requests being worked on get 5 s to end, as waitress has it.
        """
        # What there is by now stays; the garbage collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        self._waitress.run()


def _url(accepting: socket.socket) -> str:
    address = accepting.getsockname()
    if accepting.family == socket.AF_UNIX:
        return f"unix:{address}"
    host, port = address[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like ``sys.exit()``, so that what it opened is closed."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    # What is ignored stays so: nohup asks for that.
    heeded = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, leave) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
