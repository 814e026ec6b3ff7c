"""The server process: sockets, waitress, signals and the drain."""

from medmitra_cases.server import service
from medmitra_cases.server.signals import exit_on_signals, killed_by_ctrl_c

__all__ = ["exit_on_signals", "killed_by_ctrl_c", "service"]
