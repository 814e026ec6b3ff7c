"""How a request is read where waitress's own way is not ours. It builds on waitress's internals."""

import ipaddress
import time
from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError


class RequestParser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Reads a request as waitress does, but lets nothing in its header get further than it should.

    Attributes:
        arrived_at: When the request had arrived whole, in seconds of the monotonic clock.
    """

    headers: dict[str, str]
    command = ""  # of a request whose first line cannot be read
    path = ""

    def __init__(self, adj: Any) -> None:
        """Begin with nothing read.

        Args:
            adj: Waitress's settings.
        """
        super().__init__(adj)
        self.arrived_at = time.monotonic()

    def received(self, data: bytes) -> int:
        """Take in what has arrived.

        Args:
            data: At least one byte.

        Returns:
            How many bytes of it belong to this request.
        """
        consumed: int = super().received(data)
        if self.completed:
            self.arrived_at = time.monotonic()
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Read the header.

        Args:
            header_plus: Its lines.

        Raises:
            ParsingError: It cannot be read. The message quotes nothing of it.
        """
        try:
            super().parse_header(header_plus)
        except ParsingError as error:
            # What follows is the line that waitress could not read, and that may be the one with the token.
            raise ParsingError(str(error).partition(' "')[0]) from None
        except ValueError:  # of an absolute target with half a bracket, or a number of 5,000 digits
            raise ParsingError("HTTP message cannot be read") from None
        if not (self.chunked or self.content_length):
            # Who sends no body waits for nothing (RFC 9110, 10.1.1); waitress would wait for another header.
            self.expect_continue = False
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
