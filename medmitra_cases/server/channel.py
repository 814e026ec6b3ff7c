"""Connections and responses, with the changes that this service makes to waitress's.

Like request_parser.py, listeners.py and server.py this uses waitress's internals, so setup.cfg bounds its
version.
"""

import logging
import time
from typing import Any

from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.task import ErrorTask, Task, WSGITask

from medmitra_cases.errors import BrokenOff
from medmitra_cases.schemas import error_body
from medmitra_cases.server.request_parser import RequestParser
from medmitra_cases.telemetry import metrics, request_id
from medmitra_cases.web import BROKEN_OFF, RECEIVED_AT, SECURITY_HEADERS, audit, client_address

# Seconds that a request may take to arrive while the server drains.
MAX_ARRIVAL_SECONDS = 2.0

_log = logging.getLogger(__name__)


def _count(task: Task, status: str) -> None:
    """Count a finished request by its HTTP status, or as ``broken_off``."""
    route_of = task.channel.server.route_of
    if route_of is not None:
        seconds = time.monotonic() - task.request.received_at
        metrics.REQUEST_SECONDS.labels(route_of(task.request.path), status).observe(seconds)


class _JsonErrorTask(ErrorTask):  # type: ignore[misc]
    """Refuses what never reaches the application, such as an unreadable request line, with the error body."""

    def execute(self) -> None:
        error = self.request.error
        if error.code != 500:  # a request that failed with 500 has its id already
            request_id.start(self.request.headers.get("X_REQUEST_ID", ""))
            _log.info("request refused with %d: %s", error.code, error.body)  # quotes nothing of it
        body = error_body("Internal server error: unexpected error" if error.code == 500 else error.body)
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [
            ("Content-Type", "application/json"),
            ("X-Request-ID", request_id.current()),
            *SECURITY_HEADERS,
        ]
        self.content_length = len(body)
        self.set_close_on_finish()
        _count(self, str(error.code))
        self._write_audit(error.code)
        self.write(b"" if self.request.command == "HEAD" else body)

    def _write_audit(self, status: int) -> None:
        """Leave a line in the audit. The application itself has left that of a request that failed (500)."""
        server, request = self.channel.server, self.request
        if server.route_of is not None and status != 500:
            client = client_address(self.channel.addr[0], request.headers.get("X_FORWARDED_FOR", ""))
            audit.write_refused(server.route_of(request.path), request.query, client, status)


class _Task(WSGITask):  # type: ignore[misc]
    """Runs the application and sends its response."""

    wrote_header: bool

    def get_environment(self) -> dict[str, Any]:
        """Add the time at which the request arrived."""
        environ: dict[str, Any] = super().get_environment()
        environ[RECEIVED_AT] = self.request.received_at
        return environ

    def execute(self) -> None:
        """Run the application and count the request, unless it fails before its response begins."""
        try:
            super().execute()
        except BrokenOff:  # the log has the reason
            _count(self, BROKEN_OFF)
            self.chunked_response = False  # so that finish() sends no last chunk
            self.close_on_finish = True
        except ClientDisconnected:
            _count(self, BROKEN_OFF)
            raise
        else:
            _count(self, self.status[:3])

    def build_response_header(self) -> bytes:
        """Build the header; during the drain it closes the connection."""
        self.channel.last_activity = 0  # the present: the timeout of the client begins now
        if self.channel.server.draining and len(self.channel.requests) == 1:
            self.request.headers["CONNECTION"] = "close"  # as if the client had sent it
        lines: bytes = super().build_response_header()
        return lines

    def set_close_on_finish(self) -> None:
        """Close the connection, unless only the Content-Length of a response without a body is missing.

        A 304 ends with its header (RFC 9112, 6.3); waitress takes its end for unknown.
        """
        is_kept = self.version == "1.1" and self.request.headers.get("CONNECTION", "").lower() != "close"
        if self.has_body or not is_kept:
            super().set_close_on_finish()

    def write(self, data: bytes) -> None:
        """Send a complete response with one system call; waitress needs another for the header."""
        if self.wrote_header or not self.has_body or self.content_length != len(data):
            super().write(data)
            return
        self.channel.write_soon(self.build_response_header() + data)
        self.wrote_header = True
        self.content_bytes_written = len(data)

    def finish(self) -> None:
        """End the response; to HEAD without a last chunk, because there is no body (RFC 9110, 9.3.2)."""
        if self.request.command != "HEAD":
            super().finish()
        else:
            self.write(b"")


class Channel(HTTPChannel):  # type: ignore[misc]
    """One client's connection."""

    parser_class = RequestParser
    error_task_class = _JsonErrorTask
    task_class = _Task

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
