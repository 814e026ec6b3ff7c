"""Serves requests until a signal arrives, then drains: finishes the requests in flight, and ends."""

import gc
import logging
import math
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from waitress import wasyncore

from medmitra_cases.server.channel import Channel
from medmitra_cases.server.listeners import WsgiApp, add_listeners
from medmitra_cases.server.sockets import max_connections, url_of
from medmitra_cases.settings import Settings
from medmitra_cases.telemetry import END_SIGNALS, handle_signals, is_exit_requested
from medmitra_cases.web import audit

# The admin listener: requests at once, connections, and seconds that a connection may be idle.
ADMIN_THREADS = 4
ADMIN_CONNECTIONS = 32
ADMIN_IDLE_SECONDS = 5

# Seconds without a request after which the drain is complete. A request that a client has just sent on an
# open connection arrives within that time.
QUIET_SECONDS = 0.25

# Seconds between two searches for idle connections.
CLEAN_UP_SECONDS = 30

# Seconds that requests get to close their resources after their clients were cut off.
CLOSE_SECONDS = 0.5

_log = logging.getLogger(__name__)


class Server:
    """A waitress server that accepts connections; ``run`` serves them."""

    def __init__(
        self,
        app: WsgiApp,
        settings: Settings,
        sockets: Sequence[socket.socket],
        *,
        shared: bool,
        route_of: Callable[[str], str],
    ) -> None:
        """Start to accept connections.

        Args:
            app: The WSGI application.
            settings: ``threads``, ``keepalive_seconds`` and ``drain_seconds`` are used.
            sockets: The listening sockets, either all of TCP or all of Unix.
            shared: Whether other processes accept on the same sockets.
            route_of: Returns the route in the metrics for the path of a request.
        """
        self._settings = settings
        self._sockets = sockets
        self._shared = shared
        self._map: dict[int, Any] = {}  # the channels, listeners and triggers of the I/O loop, by descriptor
        self._drain_deadline = math.inf  # in seconds of the monotonic clock
        self._clean_up_at = 0.0  # in seconds of the monotonic clock
        self._listeners = self._all_listeners = add_listeners(
            app,
            sockets,
            self._map,
            route_of=route_of,
            cors_origins=settings.cors_origins,
            places=settings.threads,
            in_threads=False,
            max_connections=max_connections(settings.max_connections),
            queue_excess=True,
            idle_seconds=settings.keepalive_seconds,
        )

    @property
    def draining(self) -> bool:
        """Whether it only finishes the requests that it has, and then ends."""
        return self._drain_deadline < math.inf

    @property
    def in_flight(self) -> int:
        """The number of connections with a request, or with a response that is not sent completely."""
        return sum(channel.is_busy for channel in self._channels)

    def listen_for_admin(self, app: WsgiApp, sockets: Sequence[socket.socket]) -> list[str]:
        """Accept connections for a second application, on threads of its own and until the process ends.

        Args:
            app: The WSGI application.
            sockets: Listening sockets.

        Returns:
            Their addresses.
        """
        self._all_listeners = self._listeners + add_listeners(
            app,
            sockets,
            self._map,
            route_of=None,
            cors_origins=(),
            places=ADMIN_THREADS,
            in_threads=True,
            max_connections=ADMIN_CONNECTIONS,
            queue_excess=False,
            idle_seconds=ADMIN_IDLE_SECONDS,
        )
        return [url_of(listening) for listening in sockets]

    def run(self, announce: Callable[[Sequence[str]], None]) -> None:
        """Serve until SIGTERM, SIGHUP or SIGINT, then finish the requests in flight.

        Args:
            announce: Called once the signals are handled, with the addresses for clients.

        Raises:
            SystemExit: With status 1, if ``drain_seconds`` or a second signal ended the drain early.
        """
        # Until the process ends: no signal may interrupt the code that closes resources afterwards.
        handle_signals(self._on_signal, *END_SIGNALS)
        if is_exit_requested():
            self._drain_deadline = time.monotonic() + self._settings.drain_seconds
        # The objects that exist now stay; the garbage collector need not examine them again.
        gc.collect()
        gc.freeze()
        announce([url_of(listening) for listening in self._sockets])
        while not self.draining:
            self._poll_once(1)
        self._stop_accepting()
        _log.info("draining; connections with a request: %d", self.in_flight)
        self._drain()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Begin to drain; at the second signal end the drain."""
        self._drain_deadline = time.monotonic() + (0 if self.draining else self._settings.drain_seconds)
        self._listeners[0].trigger.pull_trigger()

    def _poll_once(self, seconds: float) -> None:
        """Wait for events on the sockets for at most this long, and handle them."""
        dispatcher = self._listeners[0].task_dispatcher
        wasyncore.loop(timeout=seconds * dispatcher.is_idle, use_poll=True, map=self._map, count=1)
        dispatcher.run_requests()
        now = time.monotonic()
        if now >= self._clean_up_at:
            self._clean_up_at = now + CLEAN_UP_SECONDS
            for listener in self._all_listeners:
                listener.maintenance(now)  # closes connections that are idle for too long

    def _stop_accepting(self) -> None:
        for listener in self._listeners:
            listener.draining = True
            connections = len(self._map) if self._shared else 0
            while len(self._map) > connections:  # accept what has connected, unless another process can
                connections = len(self._map)
                listener.handle_accept()
            # Not listener.close(): that closes the trigger too, which other threads still pull.
            wasyncore.dispatcher.close(listener)

    def _drain(self) -> None:
        quiet_at = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < min(quiet_at, self._drain_deadline):
            self._poll_once(QUIET_SECONDS)
            if any(channel.is_busy or channel.is_receiving for channel in self._channels):
                quiet_at = time.monotonic() + QUIET_SECONDS
        cut_off = [channel for channel in self._channels if channel.is_busy]
        if cut_off:
            _log.warning("clients cut off before their responses were complete: %d", len(cut_off))
            for channel in cut_off:
                channel.handle_close()  # a request that still writes gets an error, and closes its resources
            deadline = time.monotonic() + CLOSE_SECONDS
            while any(channel.requests for channel in cut_off) and time.monotonic() < deadline:
                self._poll_once(0.01)
            audit.write_unfinished()
            raise SystemExit(1)

    @property
    def _channels(self) -> list[Channel]:
        return [
            channel for listener in self._listeners for channel in list(listener.active_channels.values())
        ]
