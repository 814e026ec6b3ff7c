"""Handlers for the signals that end the process."""

import signal
from collections.abc import Callable
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
    """Let SIGTERM, SIGHUP and SIGINT raise SystemExit, so that open resources are closed."""
    handle_signals(_exit, *END_SIGNALS)


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
