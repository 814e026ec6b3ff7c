"""Lets a forked child forget what belongs to its parent: connections, threads and locks."""

import os
import threading
from collections.abc import Callable
from types import MethodType
from weakref import WeakMethod

_references: list[Callable[[], Callable[[], None] | None]] = []
_lock = threading.Lock()
_pid = os.getpid()


def call_after_fork(function: Callable[[], None]) -> None:
    """Call a function in every child that this process forks, before anything inherited is used there.

    Args:
        function: A function, or a bound method, which does not keep its object alive. It must take no lock,
            because the thread that held it is not in the child. It must not close a connection to Postgres
            either: that would end the session of the parent.
    """
    _references.append(WeakMethod(function) if isinstance(function, MethodType) else lambda: function)


def reset_if_forked() -> None:
    """Make these calls now, if this process was forked by a server that does not call Python's fork hooks.

    uWSGI does not call them. So this runs at the start of each request. It costs one system call.
    """
    if os.getpid() != _pid:
        with _lock:  # the first requests may come in several threads
            if os.getpid() != _pid:
                _reset()


def _reset() -> None:
    global _pid
    for reference in _references:
        function = reference()
        if function is not None:
            function()
    _pid = os.getpid()  # last, because other threads wait until then


os.register_at_fork(after_in_child=_reset)
