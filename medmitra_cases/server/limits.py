"""The limits of the process: its file descriptors, and the memory that the C library keeps."""

import ctypes
import resource

# The maximum number of open client connections, if there are descriptors for them; more wait in the backlog.
MAX_CONNECTIONS = 1_000

# Descriptors for everything else, except the two that each thread needs for its database connection.
RESERVED = 100

# mallopt(3). By default glibc may use eight arenas for each core, and none returns memory that another could
# use. One thread at a time runs Python, so two are enough: after mixed traffic 72 MB stay instead of 115.
M_ARENA_MAX = -8
ARENAS = 2


def max_connections(threads: int) -> int:
    """Raise the limit of file descriptors as far as needed and allowed.

    Without a free descriptor, accept() would fail again and again without a pause.

    Args:
        threads: The number of threads that have a database connection.

    Returns:
        The number of client connections that the descriptors are enough for.
    """
    others = RESERVED + 2 * threads
    wanted = MAX_CONNECTIONS + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(MAX_CONNECTIONS, soft - others), 1)


def limit_arenas() -> None:
    """Limit the arenas of glibc, before threads create more; other C libraries have none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
