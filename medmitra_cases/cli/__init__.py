"""The command ``medmitra-cases``. ``run`` in ``__init__.py`` is its entry point."""

import atexit
import os
import signal
import sys
from importlib import import_module
from threading import Thread

__all__ = ["run"]


def run() -> None:
    """Run the command with the arguments of this process.

    Raises:
        SystemExit: Always, with the exit status of the command.
    """
    _end_on_signals()  # before the imports, which take half a second
    # Meant for another program: with it, prometheus_client would keep the metrics in files of that folder.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    _open_missing_streams()
    atexit.register(_discard_unwritten_output)  # runs last, after the log is written
    import_module("medmitra_cases.cli.main").main(prog_name="medmitra-cases")


def _end_on_signals() -> None:
    """End the process on SIGTERM, SIGHUP and SIGINT, until the command sets its own handlers.

    The kernel drops each signal without a handler that it would send to process 1, as in a container.
    """
    # A signal that is ignored stays ignored: nohup depends on that.
    numbers = {
        number
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    is_service = sys.argv[1:2] in (["serve"], ["demo"], ["harness"])
    if os.getpid() == 1 and not is_service:
        # A handler would not run while libpq waits for a server; this thread does.
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        Thread(target=lambda: os._exit(128 + signal.sigwait(numbers)), daemon=True).start()
        return
    for number in numbers:
        signal.signal(number, (lambda *_: os._exit(0)) if is_service else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # the parent process may have blocked them


def _open_missing_streams() -> None:
    """Open the standard streams that the parent process closed, so that no socket gets their descriptors."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        # Only for reading: a write then fails as on a closed descriptor.
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDONLY) == descriptor:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115


def _discard_unwritten_output() -> None:
    """Discard output that cannot be written: Python would try again, and end with status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
