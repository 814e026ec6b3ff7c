"""Answers requests until a signal says to end, and then those that there are."""

import gc
import logging
import math
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from waitress import wasyncore

from medmitra_cases.server.channel import Channel
from medmitra_cases.server.limits import max_connections
from medmitra_cases.server.listeners import WsgiApp, add_listeners
from medmitra_cases.server.signals import handle_signals
from medmitra_cases.settings import Settings
from medmitra_cases.web import audit

# Probes and scrapes answered at once, connections for them, and how long one may be idle.
ADMIN_THREADS = 4
ADMIN_CONNECTIONS = 32
ADMIN_IDLE_SECONDS = 5

# Seconds without a request after which a server that drains is done. What clients sent just before, on
# connections they had, arrives within that.
QUIET_SECONDS = 0.25

# Seconds that threads get to close what they have, when their clients were cut off.
CLOSE_SECONDS = 0.5

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

_log = logging.getLogger(__name__)


class Server:
    """A waitress server that accepts connections; ``run`` answers them."""

    def __init__(
        self, app: WsgiApp, settings: Settings, sockets: Sequence[socket.socket], *, shared: bool
    ) -> None:
        """Accept connections.

        Args:
            app: The WSGI application.
            settings: ``threads``, ``keepalive_seconds`` and ``drain_seconds`` are used.
            sockets: Where to accept them: listening sockets, either all of TCP or all of Unix.
            shared: Whether others go on accepting there when this process ends.
        """
        # It warns of every request that waits for a thread; under load that is most of them.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._settings = settings
        self._sockets = sockets
        self._shared = shared
        self._map: dict[int, Any] = {}  # what the I/O loop looks after, by descriptor
        self._give_up_at = math.inf  # in seconds of the monotonic clock
        self._listeners = add_listeners(
            app,
            sockets,
            self._map,
            counted=True,
            threads=settings.threads,
            max_connections=max_connections(settings.threads),
            queue_excess=True,
            idle_seconds=settings.keepalive_seconds,
        )

    @property
    def draining(self) -> bool:
        """Whether it is about to end, and only answers what it has."""
        return self._give_up_at < math.inf

    @property
    def in_flight(self) -> int:
        """The number of clients with a request, or with something of an answer still to be sent to them."""
        return sum(channel.is_busy for channel in self._channels)

    def listen_for_admin(self, app: WsgiApp, sockets: Sequence[socket.socket]) -> list[str]:
        """Accept connections for another application, on threads of its own and until the very end.

        Args:
            app: The WSGI application.
            sockets: Listening sockets.

        Returns:
            Their addresses.
        """
        add_listeners(
            app,
            sockets,
            self._map,
            counted=False,
            threads=ADMIN_THREADS,
            max_connections=ADMIN_CONNECTIONS,
            queue_excess=False,
            idle_seconds=ADMIN_IDLE_SECONDS,
        )
        return [_url(accepting) for accepting in sockets]

    def run(self, announce: Callable[[Sequence[str]], None]) -> None:
        """Answer requests until SIGTERM, SIGHUP or SIGINT; then those that there are, and return.

        Args:
            announce: Called once these signals do so, with the addresses where clients may connect.

        Raises:
            SystemExit: With status 1, if ``drain_seconds`` or a second signal cut that short.
        """
        # What there is by now stays; the garbage collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        handle_signals(self._on_signal, *_ENDING_SIGNALS)  # to the end: what follows is not to be cut short
        announce([_url(accepting) for accepting in self._sockets])
        while not self.draining:
            self._poll_once(1)
        self._stop_accepting()
        _log.info("ending; clients to be answered first: %d", self.in_flight)
        self._drain()

    def _on_signal(self) -> None:
        """Begin to drain; the second time, end it. Runs in between two instructions of the I/O loop."""
        self._give_up_at = time.monotonic() + (0 if self.draining else self._settings.drain_seconds)
        self._listeners[0].pull_trigger()

    def _poll_once(self, seconds: float) -> None:
        """Do what is to be done on the sockets; wait for something as long as that."""
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._map, count=1)

    def _stop_accepting(self) -> None:
        for listener in self._listeners:
            listener.draining = True
            connections = len(self._map) if self._shared else 0
            while len(self._map) > connections:  # who has connected is answered, here or by others
                connections = len(self._map)
                listener.handle_accept()
            # Not its own close(): that takes the trigger along, which the threads still pull.
            wasyncore.dispatcher.close(listener)

    def _drain(self) -> None:
        done_at = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < min(done_at, self._give_up_at):
            self._poll_once(QUIET_SECONDS)
            if any(channel.is_busy or channel.is_receiving for channel in self._channels):
                done_at = time.monotonic() + QUIET_SECONDS
        cut_off = [channel for channel in self._channels if channel.is_busy]
        if cut_off:
            _log.warning("clients cut off before they had their answers: %d", len(cut_off))
            for channel in cut_off:
                channel.handle_close()  # what still writes to it gets an error, and closes what it has
            close_by = time.monotonic() + CLOSE_SECONDS
            while any(channel.requests for channel in cut_off) and time.monotonic() < close_by:
                self._poll_once(0.01)
            audit.write_unfinished()
            raise SystemExit(1)

    @property
    def _channels(self) -> list[Channel]:
        return [
            channel for listener in self._listeners for channel in list(listener.active_channels.values())
        ]


def _url(accepting: socket.socket) -> str:
    address = accepting.getsockname()
    if accepting.family == socket.AF_UNIX:
        return f"unix:{address}"
    host, port = address[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
