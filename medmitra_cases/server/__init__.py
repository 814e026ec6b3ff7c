"""The server process: sockets, waitress, signals and the drain."""

from medmitra_cases.server.service import serve
from medmitra_cases.server.signals import exit_on_signals

__all__ = ["exit_on_signals", "serve"]
