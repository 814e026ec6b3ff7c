"""Keeps the process small: glibc would hold memory back for many threads at once."""

import ctypes

# mallopt(3). By default there may be eight arenas for each core, and none gives back what another could use.
# As one thread at a time runs Python, two are enough: mixed traffic then leaves 72 MB instead of 115.
M_ARENA_MAX = -8
ARENAS = 2


def limit_arenas() -> None:
    """Let the C library have few arenas, before threads make more of them; others than glibc have none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
