"""Lets objects forget, in a forked child, what belongs to the parent: connections, threads and locks."""

import os
from collections.abc import Callable
from weakref import WeakMethod

_methods: list[WeakMethod[Callable[[], None]]] = []


def call_after_fork(method: Callable[[], None]) -> None:
    """Call a method in every child that this process forks, before anything else runs there.

    Args:
        method: A bound method. It must take no lock, because the thread that held it is not in the child. It
            must not close a connection to Postgres either: that would end the session of the parent.
    """
    _methods.append(WeakMethod(method))


def _call_methods() -> None:
    for reference in _methods:
        method = reference()
        if method is not None:
            method()


os.register_at_fork(after_in_child=_call_methods)
