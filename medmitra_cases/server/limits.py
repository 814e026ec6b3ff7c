"""The limits of the process: file descriptors and the memory that the C library keeps."""

import ctypes
import resource

# Client connections that are open at once, if there are descriptors for them; more wait in the backlog.
MAX_CONNECTIONS = 1_000

# Descriptors for everything else, each thread's two for its database connection left aside.
RESERVED = 100

# mallopt(3). By default there may be eight arenas for each core, and none gives back what another could use.
# As one thread at a time runs Python, two are enough: mixed traffic then leaves 72 MB instead of 115.
M_ARENA_MAX = -8
ARENAS = 2


def max_connections(threads: int) -> int:
    """Let the process have the descriptors it needs, as far as it may, and say for how many clients they do.

    Without one left, accepting would fail, again and again and without a pause.

    Args:
        threads: How many threads have a connection to the database.

    Returns:
        How many client connections there may be.
    """
    others = RESERVED + 2 * threads
    wanted = MAX_CONNECTIONS + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(MAX_CONNECTIONS, soft - others), 1)


def limit_arenas() -> None:
    """Let the C library have few arenas, before threads make more of them; others than glibc have none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
