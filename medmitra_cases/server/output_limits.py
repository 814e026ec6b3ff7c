"""Limits the memory, the threads and the connections to Postgres that slow clients hold."""

import logging
import threading
from collections.abc import Sequence
from typing import Any

from medmitra_cases.errors import Overloaded

# Bytes of a body that need no room: one of 50 cases has 20 kB.
SHORT_BYTES = 64 << 10
# Bytes in which more output is buffered. Each slice is freed when it is sent.
SLICE_BYTES = 128 << 10
# Bytes of unsent output of all connections together. Beyond that, longer lists are streams only, and a stream
# writes more only when its client has received almost all.
MAX_UNSENT_BYTES = 32 << 20
# The maximum number of streams, those that wait included; and the seconds that one waits.
MAX_STREAMS = 64
MAX_WAIT_SECONDS = 10.0

_log = logging.getLogger(__name__)


class OutputLimits:
    """The limits of one server.

    A stream holds a thread and a connection to Postgres for as long as its client takes. So there are at most
    half as many streams as threads, and more wait. Another thread takes the place of each one that sends a
    stream or waits, so that short responses never wait for a slow client.
    """

    def __init__(self, listeners: Sequence[Any], threads: int) -> None:
        """Start without streams.

        Args:
            listeners: Waitress's listeners, which share one dispatcher.
            threads: The number of threads of the dispatcher.
        """
        self._listeners = listeners
        self._threads = threads
        self._turns = threading.Semaphore(max(threads // 2, 1))
        self._lock = threading.Lock()
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
        return self.unsent_bytes > MAX_UNSENT_BYTES

    def has_room(self, size: int) -> bool:
        """Return whether a body of that many bytes may wait for its client in memory."""
        return size <= SHORT_BYTES or self.unsent_bytes + size <= MAX_UNSENT_BYTES

    def check(self, size: int) -> None:
        """Refuse a body for which the application has not called ``has_room``: one of the documentation.

        Raises:
            Overloaded: There is too much unsent output.
        """
        if size > SHORT_BYTES and self.unsent_bytes > 2 * MAX_UNSENT_BYTES:
            raise Overloaded

    def begin_stream(self) -> None:
        """Wait for a turn, while another thread takes the place of this one.

        Raises:
            Overloaded: Too many streams wait, or they wait for too long.
        """
        self._count_stream(1)
        if not self._turns.acquire(timeout=MAX_WAIT_SECONDS):
            self._count_stream(-1)
            raise Overloaded

    def end_stream(self) -> None:
        """Let another stream begin."""
        self._turns.release()
        self._count_stream(-1)

    def _count_stream(self, change: int) -> None:
        with self._lock:
            if self._streams + change > MAX_STREAMS:
                raise Overloaded
            self._streams += change
            dispatcher = self._listeners[0].task_dispatcher
            before = set(dispatcher.threads)
            try:
                dispatcher.set_thread_count(self._threads + self._streams)
            except RuntimeError as error:  # the process may have no more threads at the moment
                dispatcher.threads -= set(dispatcher.threads) - before  # the one that did not start
                _log.warning("no thread for other requests during a stream: %s", error)
