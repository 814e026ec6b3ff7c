"""Writes bytes to stderr, whatever stderr is."""

import os
import select
import sys
import time
from contextlib import suppress


def write_to_stderr(data: bytes, deadline: float | None) -> bytes:
    """Write to stderr.

    Args:
        data: Text in UTF-8.
        deadline: When to stop waiting for stderr, in seconds of the monotonic clock; None waits for ever.

    Returns:
        The end of the data, which stderr did not accept: it is closed or full, or the deadline has passed.
    """
    rest = memoryview(data)
    with suppress(Exception):  # a stderr that fails must not stop the service
        is_replaced = sys.stderr is not sys.__stderr__  # by an object of the program or of its server
        if is_replaced:
            sys.stderr.write(data.decode())
            sys.stderr.flush()
            return b""
        # Not through Python's buffer: a fork would copy what is in it, and its lock, which may be taken.
        descriptor = sys.stderr.fileno()
        # With a deadline never more than a pipe with any space accepts at once.
        size = len(data) if deadline is None else select.PIPE_BUF
        while rest and (deadline is None or _accepts_data(descriptor, deadline)):
            try:
                rest = rest[os.write(descriptor, rest[:size]) :]
            except BlockingIOError:  # another process has made it non-blocking
                _accepts_data(descriptor, deadline)
    return bytes(rest)


def _accepts_data(descriptor: int, deadline: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if deadline is None else max(deadline - time.monotonic(), 0) * 1_000))
