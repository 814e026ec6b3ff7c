"""The connection of a client, with the changes that this service makes to waitress's.

Like most modules of this wing, it uses waitress's internals. So setup.cfg bounds the version of waitress.
"""

import time
from collections.abc import Callable
from functools import partial

from waitress.channel import HTTPChannel

from medmitra_cases.server.output_limits import SHORT_BYTES
from medmitra_cases.server.request_parser import RequestParser
from medmitra_cases.server.tasks import JsonErrorTask, ResponseTask

# Seconds that a request may take to arrive while the server drains.
MAX_ARRIVAL_SECONDS = 2.0

# Bytes of unsent output at which a stream waits for its client.
MAX_STREAM_UNSENT_BYTES = 2 << 20


class Channel(HTTPChannel):  # type: ignore[misc]
    """One client's connection."""

    parser_class = RequestParser
    error_task_class = JsonErrorTask
    task_class = ResponseTask
    is_stream = False  # whether the current response is one that may wait for the client
    _when_sent: Callable[[], None] | None = None  # called when almost all is sent, or the client is gone

    @property
    def last_activity(self) -> float:
        """The time of the last activity, in seconds of the monotonic clock."""
        return self._last_activity

    @last_activity.setter
    def last_activity(self, _wall_clock: float) -> None:
        """Set it to the present, whatever the value. Waitress uses the wall clock, which can jump."""
        self._last_activity = time.monotonic()

    @property
    def is_busy(self) -> bool:
        """Whether a request is not finished, or a part of a response is not sent."""
        return bool(self.requests or self.total_outbufs_len)

    @property
    def is_receiving(self) -> bool:
        """Whether a request has begun to arrive, within the last ``MAX_ARRIVAL_SECONDS``."""
        request = self.request
        if request is None or not (request.headers_finished or request.header_plus.strip()):
            return False
        return bool(time.monotonic() - request.received_at < MAX_ARRIVAL_SECONDS)

    def writable(self) -> bool:
        """Tell the I/O loop, at least once a second, whether there is something to send.

        This also closes the connection of a client that reads no data for ``channel_timeout`` seconds.
        Waitress waits for ever if the response is not written completely, and so would a stream and its
        connection to Postgres.
        """
        if not self.total_outbufs_len:  # the usual case, first: the loop asks all connections at each turn
            return bool(self.will_close or self.close_when_flushed)
        if time.monotonic() - self.last_activity > self.adj.channel_timeout:
            self.handle_close()  # resumes the stream, which then gets ClientDisconnected
            return False
        return True

    def service(self) -> None:
        """Run the next request, but not before most of the response before it is sent."""
        if self.total_outbufs_len > SHORT_BYTES:
            with self.outbuf_lock:
                if self.total_outbufs_len > SHORT_BYTES:
                    self._when_sent = partial(self.server.add_task, self)
                    return
        super().service()

    def handle_write(self) -> None:
        """Send output, and continue what waited for that."""
        super().handle_write()
        if self.total_outbufs_len <= SHORT_BYTES:
            self._continue()

    def handle_close(self) -> None:
        """Close the connection; what waited for it gets ClientDisconnected."""
        super().handle_close()
        self._continue()

    def _continue(self) -> None:
        if self._when_sent is not None:
            when_sent, self._when_sent = self._when_sent, None
            when_sent()

    def write_soon(self, data: bytes) -> int:
        """Send at once what the kernel takes, and buffer the rest.

        Waitress buffers all. While it sends, the I/O loop then turns without a pause to send the same.
        """
        sent = 0
        if self.connected and not self.total_outbufs_len:
            with self.outbuf_lock:
                sent = int(self._flush_exception(partial(self.send, data), do_close=False)[0])
            self.last_activity = 0
        if sent < len(data):
            super().write_soon(data[sent:])
        return len(data)

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Stop a stream while too much of it is unsent, until the client has received almost all."""
        unsent = self.total_outbufs_len
        if self.is_stream and (
            unsent > MAX_STREAM_UNSENT_BYTES or (unsent > SHORT_BYTES and self.server.output_limits.is_full)
        ):
            self._when_sent = self.server.task_dispatcher.leave_place()
            self.server.task_dispatcher.switch()
