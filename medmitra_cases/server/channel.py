"""The connection of a client, with the changes that this service makes to waitress's.

Like tasks.py, request_parser.py, listeners.py and server.py this uses waitress's internals, so setup.cfg
bounds its version.
"""

import time

from waitress.channel import HTTPChannel

from medmitra_cases.server.request_parser import RequestParser
from medmitra_cases.server.tasks import JsonErrorTask, ResponseTask

# Seconds that a request may take to arrive while the server drains.
MAX_ARRIVAL_SECONDS = 2.0


class Channel(HTTPChannel):  # type: ignore[misc]
    """One client's connection."""

    parser_class = RequestParser
    error_task_class = JsonErrorTask
    task_class = ResponseTask

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
        request = self.request  # another thread may remove it meanwhile
        if request is None or not (request.headers_finished or request.header_plus.strip()):
            return False
        return bool(time.monotonic() - request.received_at < MAX_ARRIVAL_SECONDS)

    def writable(self) -> bool:
        """Tell the I/O loop, at least once a second, whether there is something to send.

        This also closes the connection of a client that reads no data for ``channel_timeout`` seconds.
        Waitress waits for ever if the response is not written completely, and so would a thread and its
        database connection.
        """
        if self.total_outbufs_len and time.monotonic() - self.last_activity > self.adj.channel_timeout:
            self.handle_close()  # wakes the thread, which then gets ClientDisconnected
            return False
        return bool(super().writable())
