"""The server process: sockets, waitress, greenlets and the drain."""

from medmitra_cases.server.service import serve

__all__ = ["serve"]
