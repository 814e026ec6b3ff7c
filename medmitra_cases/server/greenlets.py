"""Runs requests in greenlets, all on the thread of waitress's I/O loop."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from greenlet import getcurrent, greenlet

from medmitra_cases.telemetry import scheduler

_log = logging.getLogger(__name__)


class GreenletDispatcher:
    """A dispatcher for waitress, and the scheduler of its requests.

    A request runs until it waits for Postgres or for its client. Then another one runs. So no request waits
    for the interpreter lock: threads that take it from each other cost more than the requests themselves.

    Attributes:
        wake: Ends the wait of the I/O loop, from another thread.
    """

    wake: Callable[[], None]

    def __init__(self, io_map: dict[int, Any], places: int) -> None:
        """Start without requests, on the thread of the I/O loop.

        Args:
            io_map: The I/O loop's objects by descriptor.
            places: The number of requests that run at once. Those that wait for their client do not count.
        """
        self._io_map = io_map
        self._places = places
        self._loop = getcurrent()
        self._waiting: deque[Callable[[], None]] = deque()  # for a place, in the order in which they came
        self._called: deque[greenlet] = deque()  # whose calls in other threads have ended
        self._idle: list[greenlet] = []  # kept, because a new one maps and unmaps memory

    @property
    def is_idle(self) -> bool:
        """Whether no request can run before the next event."""
        return not (self._called or (self._waiting and self._places))

    def add_task(self, channel: Any) -> None:
        """Queue the next request of a channel."""
        self._waiting.append(partial(self._start, channel))

    def run_requests(self) -> None:
        """Run the requests that can run, each until it waits."""
        while self._called:
            self._called.popleft().switch()
        while self._waiting and self._places:
            self._places -= 1
            self._waiting.popleft()()

    def wait_for_descriptor(self, descriptor: int, *, is_write: bool) -> None:
        """Run other requests until a descriptor can be read, or written, or has an error."""
        self._io_map[descriptor] = _Descriptor(getcurrent(), is_write)
        self._loop.switch()
        del self._io_map[descriptor]

    def wait_for_call(self, call: Callable[[], None]) -> None:
        """Run other requests while another thread makes a call, which raises nothing."""
        request = getcurrent()

        def call_and_wake() -> None:
            call()
            self._called.append(request)
            self.wake()

        try:
            threading.Thread(target=call_and_wake, name="call", daemon=True).start()
        except RuntimeError:  # the process may have no more threads at the moment
            call()
        else:
            self._loop.switch()

    def leave_place(self) -> Callable[[], None]:
        """Give the place of the current request, which waits for its client, to another one.

        Returns:
            A function that lets the current request wait for a place again, after ``switch``.
        """
        self._places += 1
        return partial(self._waiting.append, getcurrent().switch)

    def switch(self) -> None:
        """Run other requests until the current one is resumed."""
        self._loop.switch()

    def _start(self, channel: Any) -> None:
        worker = self._idle.pop() if self._idle else greenlet(self._work)
        worker.switch(channel)

    def _work(self, channel: Any) -> None:
        scheduler.set(self)
        while True:
            try:
                channel.service()
            except BaseException:
                _log.exception("a request ended without a response")
            self._places += 1
            self._idle.append(getcurrent())
            channel = self._loop.switch()


class _Descriptor:
    """A descriptor in the I/O loop that a request waits for."""

    accepting = False

    def __init__(self, request: greenlet, is_write: bool) -> None:
        self._requests = [request]
        self._is_write = is_write

    def readable(self) -> bool:
        return not self._is_write

    def writable(self) -> bool:
        return self._is_write

    def resume(self) -> None:
        if self._requests:  # the loop calls two of these functions if the other side has hung up
            self._requests.pop().switch()

    handle_read_event = handle_write_event = handle_expt_event = handle_close = handle_error = resume
