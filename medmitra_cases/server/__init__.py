"""The server process: sockets, waitress, signals and the drain."""

from medmitra_cases.server import service
from medmitra_cases.server.signals import die_on_ctrl_c, exit_on_signals

__all__ = ["die_on_ctrl_c", "exit_on_signals", "service"]
