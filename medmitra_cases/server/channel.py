"""How an answer leaves where waitress's own way is not ours.

Like request_parser.py, listeners.py and server.py it builds on waitress's internals; setup.cfg bounds its
version.
"""

import time
from typing import Any

from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.task import ErrorTask, Task, WSGITask

from medmitra_cases.contract import PATH
from medmitra_cases.errors import BrokenOff
from medmitra_cases.schemas import error_body
from medmitra_cases.server.request_parser import RequestParser
from medmitra_cases.telemetry import metrics, request_id
from medmitra_cases.web import ARRIVED_AT, BROKEN_OFF, SECURITY_HEADERS

# Seconds that a request may take to arrive while the server drains.
MAX_ARRIVAL_SECONDS = 2.0


def _count(task: Task, status: str) -> None:
    """Count a request that is answered, by its HTTP status; or ``broken_off``."""
    if task.channel.server.counted:
        # The paths that strangers ask for would be labels without end. Waitress drops slashes in front, too.
        route = PATH if task.request.path.lstrip("/") == PATH[1:] else "other"
        seconds = time.monotonic() - task.request.arrived_at
        metrics.REQUEST_SECONDS.labels(route, status).observe(seconds)


class _JsonErrorTask(ErrorTask):  # type: ignore[misc]
    """Refuses what never reaches the application, such as an unreadable request line, with our error body."""

    def execute(self) -> None:
        error = self.request.error
        if error.code != 500:  # else a request failed that has its id already
            request_id.start(self.request.headers.get("X_REQUEST_ID", ""))
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
        self.write(b"" if self.request.command == "HEAD" else body)


class _Task(WSGITask):  # type: ignore[misc]
    """Writes answers as waitress does, with a few exceptions."""

    wrote_header: bool

    def get_environment(self) -> dict[str, Any]:
        """Tell the application also when the request had arrived.

        Returns:
            The WSGI environment.
        """
        environ: dict[str, Any] = super().get_environment()
        environ[ARRIVED_AT] = self.request.arrived_at
        return environ

    def execute(self) -> None:
        """Answer, and count it; but for what failed before it began, which ``_JsonErrorTask`` counts."""
        try:
            super().execute()
        except BrokenOff:  # the log has said why
            _count(self, BROKEN_OFF)
            self.chunked_response = False  # so that finish() writes no last chunk
            self.close_on_finish = True
        except ClientDisconnected:
            _count(self, BROKEN_OFF)
            raise
        else:
            _count(self, self.status[:3])

    def build_response_header(self) -> bytes:
        """Write the header; while the server drains, it asks the client for a new connection next time.

        Returns:
            Its lines.
        """
        self.channel.last_activity = time.time()  # the reader's time begins now, however long this took
        if self.channel.server.draining and len(self.channel.requests) == 1:
            self.request.headers["CONNECTION"] = "close"  # as if the client had asked for it
        lines: bytes = super().build_response_header()
        return lines

    def set_close_on_finish(self) -> None:
        """End the connection after this answer; but not for lack of a Content-Length where there is no body.

        The end of a 304 is that of its header (RFC 9112, 6.3); waitress takes it for unknown.
        """
        is_kept = self.version == "1.1" and self.request.headers.get("CONNECTION", "").lower() != "close"
        if self.has_body or not is_kept:
            super().set_close_on_finish()

    def write(self, data: bytes) -> None:
        """Send an answer that is whole with one system call, where waitress makes one for the header, too."""
        if self.wrote_header or not self.has_body or self.content_length != len(data):
            super().write(data)
            return
        self.channel.write_soon(self.build_response_header() + data)
        self.wrote_header = True
        self.content_bytes_written = len(data)

    def finish(self) -> None:
        """End the answer; to HEAD, without the last chunk of a body it does not have (RFC 9110, 9.3.2)."""
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
    def is_busy(self) -> bool:
        """Whether there is a request to be answered, or something of an answer to be sent."""
        return bool(self.requests or self.total_outbufs_len)

    @property
    def is_receiving(self) -> bool:
        """Whether a request has begun to arrive, and not so long ago that its client is only slow."""
        request = self.request  # another thread may take it away meanwhile
        if request is None or not (request.headers_finished or request.header_plus.strip()):
            return False
        return bool(time.monotonic() - request.arrived_at < MAX_ARRIVAL_SECONDS)

    def writable(self) -> bool:
        """Tell the I/O thread, at least once a second, whether it has something to send.

        A reader who takes nothing for as long as an idle connection may stay open is given up. Waitress waits
        for ever for one whose answer is not written yet, and so would a thread and its database connection.

        Returns:
            Whether it has.
        """
        if self.total_outbufs_len and time.time() - self.last_activity > self.adj.channel_timeout:
            self.handle_close()  # wakes the thread, which finds the client gone
            return False
        return bool(super().writable())
