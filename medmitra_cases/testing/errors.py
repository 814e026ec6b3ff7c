"""The error of the harness. In pytest its traceback ends at the line of the test."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class HarnessError(Exception):
    """The harness did not start, has ended, or refused a command. The message gives the reason."""


def context_manager(function: Callable[P, Iterator[T]]) -> Callable[P, AbstractContextManager[T]]:
    """Make a context manager, as contextlib does. The traceback of a HarnessError has no line of either.

    Args:
        function: A generator function that yields once.

    Returns:
        A function that returns the context manager.
    """

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[T]:
        return _Block(contextmanager(function)(*args, **kwargs))

    return make


class _Block(AbstractContextManager[T], Generic[T]):
    def __init__(self, manager: AbstractContextManager[T]) -> None:
        self._manager = manager

    def __enter__(self) -> T:
        __tracebackhide__ = True  # for pytest
        try:
            return self._manager.__enter__()
        except HarnessError as error:
            raise error.with_traceback(None)  # noqa: B904, it keeps its context

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        __tracebackhide__ = True
        try:
            return self._manager.__exit__(kind, value, traceback)
        except HarnessError as error:
            raise error.with_traceback(None)  # noqa: B904
