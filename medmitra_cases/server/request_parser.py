"""Parses requests, with the changes that this service makes to waitress's parser (its internals)."""

import ipaddress
import time
from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError


class RequestParser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Parses a request; its errors quote nothing of the header.

    Attributes:
        received_at: When the request had arrived completely, in seconds of the monotonic clock.
    """

    headers: dict[str, str]
    command = ""  # of a request whose first line is unreadable
    path = ""

    def __init__(self, adj: Any) -> None:
        """Start with nothing received."""
        super().__init__(adj)
        self.received_at = time.monotonic()

    def received(self, data: bytes) -> int:
        """Parse received bytes, and return how many of them belong to this request."""
        consumed: int = super().received(data)
        if self.completed:
            self.received_at = time.monotonic()
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the header; a ParsingError quotes nothing of it."""
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
        forwarded_for = self.headers.pop("X_FORWARDED_FOR", None)
        if forwarded_for is not None:
            self._keep_last_address(forwarded_for)

    def _keep_last_address(self, forwarded_for: str) -> None:
        """Keep only the last address of ``X-Forwarded-For``, which the nearest proxy added.

        The client sent all before it, and waitress may fail on that.
        """
        try:
            address = ipaddress.ip_address(forwarded_for.rpartition(",")[2].strip(" \t"))
        except ValueError:
            return
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
            return  # a scope id may be any text
        self.headers["X_FORWARDED_FOR"] = f"[{address}]" if address.version == 6 else str(address)
