"""Parses requests, with the changes that this service makes to waitress's parser (its internals)."""

import re
import time
from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError, split_uri
from waitress.utilities import BadRequest, RequestHeaderFieldsTooLarge, find_double_newline

# The target and three fields, read from a header that is too large or that waitress cannot parse.
_TARGET = re.compile(rb"\s*\S+[ \t]+(\S+)")
_FIELDS = re.compile(rb"(?i)\r\n(X-Request-ID|X-Forwarded-For|Origin):([^\r\n]*)(?=\r\n[^ \t])")

# The maximum number of header fields. To parse 8,000 short ones stops the I/O loop for 10 ms.
MAX_FIELDS = 100

# Bytes. The rest of a header that is too long is read up to here, and not kept. The kernel resets a
# connection that is closed with unread data, and the client may then lose the 431.
MAX_DISCARDED_BYTES = 1 << 20

# A request line of HTTP/1 (RFC 9112, 3), and how it begins: with a method in upper case, or a part of it.
_METHOD = rb"[A-Z0-9!#$%&'*+.^_`|~-]{1,32}"
_REQUEST_LINE = re.compile(_METHOD + rb" [^\x00-\x20\x7f]+ HTTP/1\.[0-9]\r\n")
_BEGINNING = re.compile(_METHOD + rb"(?:\Z| )|\Z")
_INVALID = "Request line is invalid; this port accepts HTTP/1.1, without TLS and PROXY protocol"


class RequestParser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Parses a request; its errors quote nothing of the header.

    Attributes:
        received_at: When the request had arrived completely, in seconds of the monotonic clock.
    """

    completed: bool
    headers: dict[str, str]
    command = ""  # of a request whose first line is unreadable
    path = ""
    query = ""
    header_plus: bytes

    def __init__(self, adj: Any) -> None:
        """Start with nothing received."""
        super().__init__(adj)
        self.received_at = time.monotonic()
        self._discarded_bytes = 0

    def received(self, data: bytes) -> int:
        """Parse received bytes, and return how many of them belong to this request."""
        if self._discarded_bytes:
            consumed = self._discard(data)
        else:
            header = self.header_plus + data
            consumed = super().received(data)
            if not (self.completed or self.headers_finished):
                self._refuse_other_protocols(header)
            elif self.error is not None and self.body_rcv is None:
                self._recover(header[: len(header) - len(data) + consumed])
                if not self.headers_finished and find_double_newline(header) < 0:
                    self.completed = False
                    consumed = self._discard(data)
        if self.completed:
            self.received_at = time.monotonic()
        return consumed

    def _refuse_other_protocols(self, header: bytes) -> None:
        """Refuse an incomplete header that begins no request; waitress would wait for its end."""
        begun = header.lstrip()  # waitress ignores empty lines before a request, too
        if not (_REQUEST_LINE if b"\n" in begun else _BEGINNING).match(begun):
            self.error = BadRequest(_INVALID)
            self.completed = True
            self._recover(header)

    def _recover(self, header: bytes) -> None:
        """Read what the log and the audit need of a refused header, as far as it can be read."""
        target = _TARGET.match(header)
        try:
            _, _, self.path, self.query, _ = split_uri(target[1] if target else b"")
        except (ParsingError, ValueError):
            self.path = self.query = ""
        fields: dict[str, str] = {}
        for name, value in _FIELDS.findall(header):
            key = name.decode().upper().replace("-", "_")
            fields[key] = ", ".join(filter(None, (fields.get(key), value.decode("latin-1").strip(" \t"))))
        self.headers["X_REQUEST_ID"] = fields.get("X_REQUEST_ID", "")
        self.headers["X_FORWARDED_FOR"] = fields.get("X_FORWARDED_FOR", "")
        self.headers["ORIGIN"] = fields.get("ORIGIN", "")

    def _discard(self, data: bytes) -> int:
        """Drop bytes up to the end of a header that is too long, and return how many belong to it."""
        self._discarded_bytes += len(data)
        tail = self.header_plus[-3:]  # the end may have arrived in two parts
        end: int = find_double_newline(tail + data)
        self.header_plus = (tail + data)[-3:]
        self.completed = end >= 0 or self._discarded_bytes > MAX_DISCARDED_BYTES
        return end - len(tail) if end >= 0 else len(data)

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the header; a ParsingError quotes nothing of it."""
        if header_plus.count(b"\n") > MAX_FIELDS + 2:  # the request line and the empty one at the end
            self.error = RequestHeaderFieldsTooLarge(f"exceeds {MAX_FIELDS} header fields")
            header_plus = b"GET / HTTP/1.0\r\n"  # as waitress does for a long header
        if not _REQUEST_LINE.match(header_plus):
            raise ParsingError(_INVALID)
        try:
            super().parse_header(header_plus)
        except ParsingError as error:
            # The rest is the line that waitress could not parse, which may be the one with the token.
            raise ParsingError(str(error).partition(' "')[0]) from None
        except ValueError:  # of an absolute target with half a bracket, or a number of 5,000 digits
            raise ParsingError("HTTP message cannot be read") from None
        if not (self.chunked or self.content_length):
            # A client without a body does not wait for 100 Continue (RFC 9110, 10.1.1); waitress would wait.
            self.expect_continue = False
        options = self.headers.get("CONNECTION", "").lower()
        if "," in options:  # a list, or several fields; waitress knows only one option (RFC 9112, 9.3)
            listed = {option.strip(" \t") for option in options.split(",")}
            known = [option for option in ("close", "keep-alive") if option in listed]
            self.headers["CONNECTION"] = known[0] if known else ""
