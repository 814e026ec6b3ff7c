"""A log handler that many threads can log through without waiting for each other."""

import logging
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue

# Lines that may wait to be written; with more, who logs waits, too.
MAX_QUEUED_LINES = 10_000

# Seconds that a line waits for others to be written with: each writing interrupts the threads at work.
BATCH_SECONDS = 0.01

# Seconds that a flush waits for a stream that takes nothing.
FLUSH_SECONDS = 5.0


class LineHandler(logging.Handler):
    """Writes each record as a line to stderr, from a thread of its own and as many at once as there are.

    A thread that writes lets go of the interpreter, and queues up for it again behind all others. If it holds
    a handler's lock meanwhile, they queue up for that: with 8 busy threads requests/s fell to a sixth.
    """

    def __init__(self) -> None:
        """Begin with nothing to write."""
        super().__init__()
        self._lines: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._flush_requested = threading.Event()
        self._writer: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Let the record be written soon.

        Args:
            record: What was logged.
        """
        if self._writer is None:  # not sooner: a thread does not survive a fork
            self._writer = threading.Thread(target=self._write, name="log", daemon=True)
            self._writer.start()
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._lines.put(line)
        if self._lines.qsize() > MAX_QUEUED_LINES:
            self.flush()

    def flush(self) -> None:
        """Wait until all is written that was logged before; at the end of the process, too."""
        if self._writer is not None:
            written = threading.Event()
            self._lines.put(written)
            self._flush_requested.set()
            written.wait(FLUSH_SECONDS)

    def _write(self) -> None:
        while True:
            taken = [self._lines.get()]
            self._flush_requested.wait(BATCH_SECONDS)
            self._flush_requested.clear()
            with suppress(Empty):
                while True:
                    taken.append(self._lines.get_nowait())
            with suppress(OSError, ValueError):  # as logging does: a stream that is gone stops no request
                sys.stderr.write("".join(f"{line}\n" for line in taken if isinstance(line, str)))
                sys.stderr.flush()
            for written in taken:
                if isinstance(written, threading.Event):
                    written.set()
