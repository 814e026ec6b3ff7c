"""The addresses of clients, as the audit writes them."""

import ipaddress
import re

# An address with a port, or an IPv6 address in brackets, as proxies write them in X-Forwarded-For.
_WITH_PORT = re.compile(r"(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::\d{1,5})?\Z", re.ASCII | re.IGNORECASE)

# The addresses of a proxy on this machine. Waitress names every peer of a Unix socket localhost.
_PROXIES = frozenset({"127.0.0.1", "::1", "localhost"})


def canonical_address(text: str) -> str | None:
    """Write an address so that one client always has the same.

    Args:
        text: An IP address, as a socket or a proxy names it.

    Returns:
        The address without brackets and port, an IPv4 address in IPv6 (``::ffff:203.0.113.7``, RFC 4291,
        2.5.5.2) as IPv4; None if the text is no address, or has a scope id, which may be any text.
    """
    found = _WITH_PORT.match(text)
    try:
        address = ipaddress.ip_address((found[1] or found[2]) if found else text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        # Not left to str(): Python writes it as ::ffff:cb00:7107 before 3.13.
        return None if address.scope_id else str(address.ipv4_mapped or address)
    return str(address)


def peer_address(address: str) -> str:
    """Write the address of a socket's other end as ``canonical_address`` does; other texts stay.

    Args:
        address: The address as the server has it.

    Returns:
        The address.
    """
    return address if ":" not in address else canonical_address(address) or address


def client_address(peer: str, forwarded_for: str) -> str:
    """Return the client of a request: the peer, or the one that the proxy on this machine names.

    Args:
        peer: The address of the socket's other end.
        forwarded_for: ``X-Forwarded-For``; only its last address counts, which the nearest proxy added. The
            client sent all before it.

    Returns:
        The address.
    """
    peer = peer_address(peer)
    if forwarded_for and peer in _PROXIES:
        return canonical_address(forwarded_for.rpartition(",")[2].strip(" \t")) or peer
    return peer
