"""A log handler that many threads can use without waiting for each other."""

import logging
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue

# Lines in the queue. Above this number, a thread that logs waits until its line is written.
MAX_QUEUED_LINES = 10_000

# Seconds that a line waits for more lines to be written with it: each write interrupts the busy threads.
BATCH_SECONDS = 0.01

# Seconds that a flush waits if stderr accepts no data.
FLUSH_SECONDS = 5.0


class LineHandler(logging.Handler):
    """Writes each record as a line to stderr, in batches and from its own thread.

    A thread that writes releases the interpreter lock and queues for it again behind all other threads. If it
    holds the handler's lock meanwhile, they queue for that: with 8 busy threads requests/s fell to a sixth.
    """

    def __init__(self) -> None:
        """Create the queue, but no thread."""
        super().__init__()
        self._queue: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._flush_requested = threading.Event()
        self._writer: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record for the writer thread."""
        if self._writer is None:  # the thread starts on first use, because threads do not survive a fork
            self._writer = threading.Thread(target=self._write_batches, name="log", daemon=True)
            self._writer.start()
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._queue.put(line)
        if self._queue.qsize() > MAX_QUEUED_LINES:
            self.flush()

    def flush(self) -> None:
        """Wait until all queued lines are written; ``logging`` calls this also at the end of the process."""
        if self._writer is not None:
            written = threading.Event()
            self._queue.put(written)
            self._flush_requested.set()
            written.wait(FLUSH_SECONDS)

    def _write_batches(self) -> None:
        while True:
            batch = [self._queue.get()]
            self._flush_requested.wait(BATCH_SECONDS)
            self._flush_requested.clear()
            with suppress(Empty):
                while True:
                    batch.append(self._queue.get_nowait())
            with suppress(OSError, ValueError):  # a closed stderr must not stop the service
                sys.stderr.write("".join(f"{line}\n" for line in batch if isinstance(line, str)))
                sys.stderr.flush()
            for written in batch:
                if isinstance(written, threading.Event):
                    written.set()
