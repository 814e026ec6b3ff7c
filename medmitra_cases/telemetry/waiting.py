"""How a request waits: it blocks its thread, or lets other requests of the same thread run meanwhile."""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Scheduler(Protocol):
    """Runs many requests on one thread."""

    def wait_for_descriptor(self, descriptor: int, *, is_write: bool) -> None:
        """Run other requests until a descriptor can be read, or written, or has an error."""

    def wait_for_call(self, call: Callable[[], None]) -> None:
        """Run other requests while another thread makes a call, which raises nothing."""


# The scheduler of the current request; None if the request has a thread for itself.
scheduler: ContextVar[Scheduler | None] = ContextVar("scheduler", default=None)


def call_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that blocks its thread, such as one that waits for an event.

    Args:
        function: The function. It runs in another thread if this one has other requests to run.
        *args: Its arguments.
        **kwargs: Its arguments.

    Returns:
        The result of the function.

    Raises:
        BaseException: The exception that the function raises.
    """
    current = scheduler.get()
    if current is None:
        return function(*args, **kwargs)
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    current.wait_for_call(call)
    return future.result()
