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
    """Let SIGTERM, SIGHUP and SIGINT end the block like ``sys.exit()``, so that what it opened is closed."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    with _handled(leave, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        yield


@contextmanager
def die_on_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C kill the process: while libpq waits for a server, Python would not hear of it."""
    with _handled(signal.SIG_DFL, signal.SIGINT):
        yield


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers, *numbers: signal.Signals
) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    ours = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            if signal.getsignal(number) is ours[number]:  # else the block has seen to the end of the process
                signal.signal(number, before[number])
