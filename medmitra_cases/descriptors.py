"""How many connections the process has file descriptors for."""

import resource

# Client connections that are open at once, if there are descriptors for them; more wait in the backlog.
MOST_CONNECTIONS = 1_000

# Descriptors for everything else, each thread's two for its database connection left aside.
RESERVED = 100


def most_connections(threads: int) -> int:
    """Let the process have the descriptors it needs, as far as it may, and say for how many clients they do.

    Without one left, accepting would fail, again and again and without a pause.

    Args:
        threads: How many threads have a connection to the database.

    Returns:
        How many client connections there may be.
    """
    others = RESERVED + 2 * threads
    wanted = MOST_CONNECTIONS + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(MOST_CONNECTIONS, soft - others), 1)
