"""The limits that a server sets to what slow clients hold: memory and connections."""

from typing import Protocol

# The key of the limits in the WSGI environment. Other servers than ours have none.
LIMITS = "medmitra_cases.limits"


class Limits(Protocol):
    """Limits of a server for the responses of all its clients."""

    def has_room(self, size: int) -> bool:
        """Return whether a body of that many bytes may wait for its client in memory."""

    def begin_stream(self) -> None:
        """Wait until a stream may begin, and may wait for its client.

        Raises:
            Overloaded: Too many streams wait for their clients.
        """

    def end_stream(self) -> None:
        """Give the turn to another stream."""


class NoLimits:
    """The limits of a server that sets none."""

    def has_room(self, _size: int) -> bool:
        """Return that there is room."""
        return True

    def begin_stream(self) -> None:
        """Begin at once."""

    def end_stream(self) -> None:
        """Do nothing."""


NO_LIMITS = NoLimits()
