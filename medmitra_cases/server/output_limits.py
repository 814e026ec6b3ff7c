"""Limits the memory and the connections to Postgres that slow clients hold."""

import threading
from collections.abc import Sequence
from typing import Any

from medmitra_cases.errors import Overloaded
from medmitra_cases.telemetry import call_blocking

# Bytes of a body that need no room: one of 50 cases has 20 kB.
SHORT_BYTES = 64 << 10
# Bytes in which more output is buffered. Each slice is freed when it is sent.
SLICE_BYTES = 128 << 10
# Bytes of unsent output of all connections together. Beyond that, longer lists are streams only, and a stream
# writes more only when its client has received almost all.
MAX_TOTAL_UNSENT_BYTES = 32 << 20
# The maximum number of streams, those that wait included; and the seconds that one waits.
MAX_STREAMS = 64
MAX_WAIT_SECONDS = 10.0


class OutputLimits:
    """The limits of one server.

    A stream holds a connection to Postgres for as long as its client takes. So there are at most as many
    streams as places, and more wait. While a stream waits, for its client or for its turn, another request
    runs in its place, so that short responses never wait for a slow client.
    """

    def __init__(self, listeners: Sequence[Any], places: int) -> None:
        """Start without streams.

        Args:
            listeners: Waitress's listeners, which share one dispatcher.
            places: The number of requests that run at once.
        """
        self._listeners = listeners
        self._turns = threading.Semaphore(places)
        self._streams = 0

    @property
    def unsent_bytes(self) -> int:
        """The output of all connections that their clients have not received."""
        return sum(
            channel.total_outbufs_len
            for listener in self._listeners
            for channel in list(listener.active_channels.values())
        )

    @property
    def is_full(self) -> bool:
        """Whether streams must send all that they have before they read more."""
        return self.unsent_bytes > MAX_TOTAL_UNSENT_BYTES

    def has_room(self, size: int) -> bool:
        """Return whether a body of that many bytes may wait for its client in memory."""
        return size <= SHORT_BYTES or self.unsent_bytes + size <= MAX_TOTAL_UNSENT_BYTES

    def check(self, size: int) -> None:
        """Refuse a body for which the application has not called ``has_room``: one of the documentation.

        Raises:
            Overloaded: There is too much unsent output.
        """
        if size > SHORT_BYTES and self.unsent_bytes > 2 * MAX_TOTAL_UNSENT_BYTES:
            raise Overloaded

    def begin_stream(self) -> None:
        """Wait for a turn, while another request runs in the place of this one.

        Raises:
            Overloaded: Too many streams wait, or they wait for too long.
        """
        if self._streams == MAX_STREAMS:
            raise Overloaded
        self._streams += 1
        if self._turns.acquire(blocking=False):
            return
        dispatcher = self._listeners[0].task_dispatcher
        wait_for_place = dispatcher.leave_place()
        has_turn = call_blocking(self._turns.acquire, timeout=MAX_WAIT_SECONDS)
        wait_for_place()
        dispatcher.switch()
        if not has_turn:
            self._streams -= 1
            raise Overloaded

    def end_stream(self) -> None:
        """Give the turn to another stream."""
        self._turns.release()
        self._streams -= 1
