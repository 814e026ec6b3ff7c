"""Handlers for the signals that end the process."""

import signal
from collections.abc import Callable
from threading import Event
from types import FrameType
from typing import NoReturn

END_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

Handler = Callable[[int, FrameType | None], object]


def handle_signals(handler: Handler, *numbers: signal.Signals) -> None:
    """Set the handler of signals, until the process ends or sets another.

    A signal that is ignored stays ignored: nohup depends on that.

    Args:
        handler: Called in the main thread, between two instructions.
        *numbers: The signals.
    """
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def exit_on_signals() -> None:
    """Raise SystemExit on SIGTERM, SIGHUP and SIGINT, so that open resources are closed."""
    _exit_requested.clear()
    handle_signals(_exit, *END_SIGNALS)


def is_exit_requested() -> bool:
    """Return whether ``exit_on_signals`` has raised SystemExit and Python has ignored it.

    Python ignores what a handler raises in a callback, such as one of the garbage collector.
    """
    return _exit_requested.is_set()


_exit_requested = Event()


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    _exit_requested.set()
    raise SystemExit(0)
