"""How a request is read and an answer leaves where waitress's own way is not ours.

This is the one module that builds on waitress's internals; setup.cfg bounds its version for that reason.
"""

import ipaddress
import time

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask, WSGITask

from medmitra_cases.error_handlers import error_body
from medmitra_cases.response_headers import SAFETY


class _Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Reads a request's header as waitress does, but lets nothing in it get further than it should."""

    headers: dict[str, str]
    command = ""  # of a request whose first line cannot be read

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ParsingError as error:
            # What follows is the line that waitress could not read, and that may be the one with the token.
            raise ParsingError(str(error).partition(' "')[0]) from None
        except ValueError:  # of an absolute target with half a bracket, or a number of 5,000 digits
            raise ParsingError("HTTP message cannot be read") from None
        forwarded_for = self.headers.pop("X_FORWARDED_FOR", None)
        if forwarded_for is not None:
            self._keep_address(forwarded_for)

    def _keep_address(self, forwarded_for: str) -> None:
        """Keep of ``X-Forwarded-For`` what the nearest proxy added, if it is an address.

        All before that is what the client sent, on which waitress stumbles.
        """
        try:
            address = ipaddress.ip_address(forwarded_for.rpartition(",")[2].strip(" \t"))
        except ValueError:
            return
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
            return  # any text
        self.headers["X_FORWARDED_FOR"] = f"[{address}]" if address.version == 6 else str(address)


class _JsonErrorTask(ErrorTask):  # type: ignore[misc]
    """Refuses what never reaches the application, such as an unreadable request line, with our error body."""

    def execute(self) -> None:
        error = self.request.error
        body = error_body("Internal server error: unexpected error" if error.code == 500 else error.body)
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [("Content-Type", "application/json"), *SAFETY]
        self.content_length = len(body)
        self.set_close_on_finish()
        self.write(b"" if self.request.command == "HEAD" else body)


class _Task(WSGITask):  # type: ignore[misc]
    """Writes answers as waitress does, with two exceptions."""

    wrote_header: bool

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
        elif not self.wrote_header:
            self.write(b"")


class Channel(HTTPChannel):  # type: ignore[misc]
    """One client's connection."""

    parser_class = _Parser
    error_task_class = _JsonErrorTask
    task_class = _Task

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
