"""What the signals do that end a process."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def handle_signals(handle: Callable[[], None], *numbers: signal.Signals) -> None:
    """Handle signals from now on. One that is ignored stays so: nohup asks for that.

    Args:
        handle: Called for each signal, in the main thread and in between two instructions of what that does.
        *numbers: Which signals.
    """

    def handler(_signal: int, _frame: FrameType | None) -> None:
        handle()

    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like ``sys.exit()``, so that what it opened is closed."""

    def leave() -> None:
        raise SystemExit(0)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    handle_signals(leave, *before)
    ours = {number: signal.getsignal(number) for number in before}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is ours[number]:  # else the block has seen to the end of the process
                signal.signal(number, handler)
