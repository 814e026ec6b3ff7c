"""A network link to Postgres that can drop packets without an error."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Link:
    """A network of two hosts: this machine, and a network namespace.

    Attributes:
        enter_namespace: The start of a command that runs in the namespace.
        own_address: This machine's IPv6 address.
        address: The namespace's IPv6 address.
    """

    def __init__(self) -> None:
        self._name = f"medmitra-{os.getpid()}"
        self.enter_namespace = ("ip", "netns", "exec", self._name)
        # RFC 4193: a private network with a random prefix, which this machine does not use yet.
        prefix = f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}:"
        self.own_address, self.address = f"{prefix}:1", f"{prefix}:2"

    def __enter__(self) -> "Link":
        device = f"mm{os.getpid()}"
        _ip("netns", "add", self._name)
        _ip("link", "add", device, "type", "veth", "peer", "name", device, "netns", self._name)
        for host, address in ((), self.own_address), (("-n", self._name), self.address):
            _ip(*host, "address", "add", f"{address}/64", "dev", device, "nodad")
            _ip(*host, "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "delete", self._name)  # this deletes both ends of the link, too

    @contextmanager
    def dead(self) -> Iterator[None]:
        """Drop all packets from the namespace until the block ends, without an error."""
        _ip("-n", self._name, "route", "add", "blackhole", self.own_address)
        try:
            yield
        finally:
            _ip("-n", self._name, "route", "delete", "blackhole", self.own_address)
