"""Tests whether the other side of a connection has closed it."""

import ctypes
import select
from collections.abc import Callable
from functools import partial


class _PollFd(ctypes.Structure):
    """The struct pollfd of poll(2)."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


# It keeps the interpreter lock. select.poll() gives it up, and 8 busy threads then answer 5 % fewer requests.
_poll = ctypes.PyDLL(None).poll


def hang_up_test(descriptor: int) -> Callable[[], int]:
    """Make a function that tests a descriptor, without a wait.

    Args:
        descriptor: A connected socket.

    Returns:
        A function that returns 0 unless the other side has closed the connection, as far as is known here.
    """
    return partial(_poll, ctypes.byref(_PollFd(descriptor, select.POLLRDHUP)), 1, 0)
