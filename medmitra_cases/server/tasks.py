"""Sends responses and errors, with the changes that this service makes to waitress's tasks."""

import logging
import time
from functools import lru_cache
from typing import Any

from waitress.channel import ClientDisconnected
from waitress.task import ErrorTask, Task, WSGITask
from waitress.utilities import build_http_date

from medmitra_cases.errors import BrokenOff, Fault, Overloaded
from medmitra_cases.responses import LIMITS
from medmitra_cases.schemas import error_body
from medmitra_cases.server.output_limits import SLICE_BYTES
from medmitra_cases.telemetry import metrics, request_id
from medmitra_cases.web import (
    BROKEN_OFF,
    ERROR_KIND,
    RECEIVED_AT,
    SECURITY_HEADERS,
    audit,
    client_address,
    cors,
    report_fault,
)

_log = logging.getLogger(__name__)


def _count(task: Task, status: str, error: str = "") -> None:
    """Count a finished request by its HTTP status, or as ``broken_off``, and by the kind of the failure."""
    route_of = task.channel.server.route_of
    if route_of is not None:
        seconds = time.monotonic() - task.request.received_at
        metrics.REQUEST_SECONDS.labels(route_of(task.request.path), status, error).observe(seconds)


def _error_headers(task: Task) -> list[tuple[str, str]]:
    return [
        ("Content-Type", "application/json"),
        ("X-Request-ID", request_id.current()),
        *SECURITY_HEADERS,
        *cors.fields_of_refusal(task.request.headers.get("ORIGIN", ""), task.channel.server.cors_origins),
    ]


@lru_cache
def _capitalize(name: str) -> str:
    """Change the letter case of a field's name as waitress does."""
    return "-".join(map(str.capitalize, name.split("-")))


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """Write a time of the wall clock as the field Date has it."""
    return str(build_http_date(second))


class JsonErrorTask(ErrorTask):  # type: ignore[misc]
    """Refuses what never reaches the application, such as an unreadable request line, with the error body."""

    def execute(self) -> None:
        """Send the error."""
        error = self.request.error
        if error.code != 500:  # a request that failed with 500 has its id already
            request_id.start(self.request.headers.get("X_REQUEST_ID", ""))
            _log.info("request refused with %d: %s", error.code, error.body)  # quotes nothing of it
        body = error_body(f"Internal server error: {Fault.public_text}" if error.code == 500 else error.body)
        self.status = f"{error.code} {error.reason}"
        self.response_headers += _error_headers(self)
        self.content_length = len(body)
        self.set_close_on_finish()
        _count(self, str(error.code), Fault.kind if error.code == 500 else "")
        self._write_audit(error.code)
        self.write(b"" if self.request.command == "HEAD" else body)

    def _write_audit(self, status: int) -> None:
        """Leave a line in the audit. The application itself has left that of a request that failed (500)."""
        server, request = self.channel.server, self.request
        if server.route_of is not None and status != 500:
            client = client_address(self.channel.addr[0], request.headers.get("X_FORWARDED_FOR", ""))
            audit.write_refused(server.route_of(request.path), request.query, client, status)


class ResponseTask(WSGITask):  # type: ignore[misc]
    """Runs the application and sends its response."""

    wrote_header: bool

    def get_environment(self) -> dict[str, Any]:
        """Add the time at which the request arrived, and the server's limits."""
        environ: dict[str, Any] = super().get_environment()
        environ[RECEIVED_AT] = self.request.received_at
        environ[LIMITS] = self.channel.server.output_limits
        return environ

    def execute(self) -> None:
        """Run the application and count the request, unless it fails before its response begins."""
        try:
            super().execute()
        except BrokenOff as error:  # the log has the reason
            _count(self, BROKEN_OFF, error.kind)
            self.chunked_response = False  # so that finish() sends no last chunk
            self.close_on_finish = True
        except ClientDisconnected:
            _count(self, BROKEN_OFF)
            raise
        except Overloaded as error:
            self._refuse(error)
        else:
            _count(self, self.status[:3], self.environ.get(ERROR_KIND, ""))

    def _refuse(self, error: Overloaded) -> None:
        """Send an error instead of the response, of which nothing is sent."""
        body = error_body(report_fault(error))
        self.status = "500 Internal Server Error"
        self.response_headers = _error_headers(self)
        self.content_length = len(body)
        _count(self, "500", error.kind)
        self.write(body)

    def build_response_header(self) -> bytes:
        """Build the header; during the drain it closes the connection."""
        self.channel.is_stream = self.content_length is None
        self.channel.last_activity = 0  # the present: the timeout of the client begins now
        if self.channel.server.draining and len(self.channel.requests) == 1:
            self.request.headers["CONNECTION"] = "close"  # as if the client had sent it
        has_length = ("Content-Length", str(self.content_length)) in self.response_headers
        if not self._is_kept or (self.has_body and not has_length):
            header: bytes = super().build_response_header()
            return header
        # The same bytes, in a third of waitress's time.
        fields = [*self.response_headers, ("Date", _date(int(self.start_time)))]
        lines = sorted(f"{_capitalize(name)}: {value}" for name, value in fields)
        return "\r\n".join([f"HTTP/1.1 {self.status}", *lines, "\r\n"]).encode("latin-1")

    @property
    def _is_kept(self) -> bool:
        """Whether the connection may stay open after the response, for the client's part."""
        connection: str = self.request.headers.get("CONNECTION", "")
        return self.version == "1.1" and connection.lower() != "close"

    def set_close_on_finish(self) -> None:
        """Close the connection, unless only the Content-Length of a response without a body is missing.

        A 304 ends with its header (RFC 9112, 6.3); waitress takes its end for unknown.
        """
        if self.has_body or not self._is_kept:
            super().set_close_on_finish()

    def write(self, data: bytes) -> None:
        """Send a complete short response with one system call; waitress needs another for the header."""
        if not self.wrote_header:
            self.channel.server.output_limits.check(len(data))
        if self.wrote_header or not self.has_body or not len(data) == self.content_length <= SLICE_BYTES:
            for start in range(0, len(data) or 1, SLICE_BYTES):  # waitress copies each
                super().write(data[start : start + SLICE_BYTES])
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
