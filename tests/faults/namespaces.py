"""A link to Postgres that can go dead without a word."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Link:
    """A network of two: this machine, and a namespace on the other side."""

    def __init__(self) -> None:
        self._name = f"medmitra-{os.getpid()}"
        self.within = ("ip", "netns", "exec", self._name)
        # RFC 4193, a private network of random name: no address that this machine knows already.
        prefix = f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}:"
        self.own_address, self.address = f"{prefix}:1", f"{prefix}:2"

    def __enter__(self) -> "Link":
        device = f"mm{os.getpid()}"
        _ip("netns", "add", self._name)
        _ip("link", "add", device, "type", "veth", "peer", "name", device, "netns", self._name)
        for side, address in ((), self.own_address), (("-n", self._name), self.address):
            _ip(*side, "address", "add", f"{address}/64", "dev", device, "nodad")
            _ip(*side, "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "delete", self._name)  # and the link with it, on both sides

    @contextmanager
    def dead(self) -> Iterator[None]:
        """Let nothing come back for as long as the block lasts, neither an answer nor an error."""
        _ip("-n", self._name, "route", "add", "blackhole", self.own_address)
        try:
            yield
        finally:
            _ip("-n", self._name, "route", "delete", "blackhole", self.own_address)
