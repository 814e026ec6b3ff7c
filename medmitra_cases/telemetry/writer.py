"""Writes lines to stderr from its own thread, so that no request waits for stderr."""

import logging
import threading
import time
from contextlib import suppress
from multiprocessing.util import Finalize
from queue import Empty, SimpleQueue

from medmitra_cases.telemetry import metrics
from medmitra_cases.telemetry.fork import call_after_fork
from medmitra_cases.telemetry.stderr import write_to_stderr

# Bytes of lines that wait for stderr: some 15,000 requests. Lines above this bound are lost, and counted.
MAX_QUEUED_BYTES = 4 << 20

# Seconds that a line waits for more lines to be written with it: each write interrupts the requests.
BATCH_SECONDS = 0.01

# Seconds that flushes wait altogether if stderr accepts no data.
FLUSH_SECONDS = 3.0


class _Gap:
    """A place between two lines, with the number of lines that are missing there."""

    lines = 0


class LineWriter:
    """Writes lines to stderr, in batches and from its own thread.

    A write can block. It also releases the interpreter lock, and waits for it again behind all other threads:
    when 8 threads that handled requests wrote their own lines, requests/s fell to a sixth.

    Attributes:
        formatter: The format of the line that reports lost lines.
    """

    def __init__(self) -> None:
        """Create the queue, but no thread."""
        self.formatter = logging.Formatter()
        self._reset()
        call_after_fork(self._reset)

    def _reset(self) -> None:
        # The parent of a forked process writes the lines that it has queued itself.
        self._queue: SimpleQueue[bytes | _Gap | threading.Event] = SimpleQueue()
        self._lock = threading.RLock()  # reentrant for signal handlers that log
        self._thread: threading.Thread | None = None
        self._flush_requested = threading.Event()
        self._queued_bytes = 0  # includes the lines that are being written
        self._gap: _Gap | None = None  # the last entry in the queue, while no line fits
        self._refused_lines = 0  # by stderr, since the last line that it accepted
        self._is_torn = False  # whether stderr has only the beginning of its last line
        self._is_stalled = False  # whether a flush has timed out since the last write

    def put(self, line: str) -> None:
        """Queue a line. If too many bytes are queued, drop and count it: the caller never waits for stderr.

        Args:
            line: The text, without a line break.
        """
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            if self._gap is None and self._queued_bytes + len(data) <= MAX_QUEUED_BYTES:
                self._queued_bytes += len(data)
                self._queue.put(data)
            else:
                self._drop()
            is_running = self._start()
        if not is_running:
            self._write_batch([], time.monotonic())

    def _drop(self) -> None:
        if self._gap is None:
            self._gap = _Gap()
            self._queue.put(self._gap)
        self._gap.lines += 1
        metrics.LOG_LINES_LOST.inc()

    def flush(self) -> None:
        """Wait until all queued lines are written, at most for ``FLUSH_SECONDS``."""
        with self._lock:
            if not self._queued_bytes:
                return
            is_running = self._start()
        timeout = 0 if self._is_stalled else FLUSH_SECONDS
        if is_running:
            written = threading.Event()
            self._queue.put(written)
            self._flush_requested.set()
            self._is_stalled = not written.wait(timeout)
        else:
            self._write_batch([], time.monotonic() + timeout)

    def _start(self) -> bool:
        """Start the thread unless it runs; False if the process may have no more threads at the moment."""
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
            # The children of multiprocessing end without logging.shutdown().
            Finalize(None, self.flush, exitpriority=0)
        return True

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            self._flush_requested.wait(BATCH_SECONDS)
            self._flush_requested.clear()
            self._write_batch([first], None)

    def _write_batch(self, queued: list[bytes | _Gap | threading.Event], deadline: float | None) -> None:
        """Write these entries and the queue; with a deadline only what stderr accepts until then."""
        with suppress(Empty):
            while True:
                queued.append(self._queue.get_nowait())
        with self._lock:
            self._gap = None
            missing, self._refused_lines = self._refused_lines, 0
        lines = [entry for entry in queued if isinstance(entry, bytes)]
        rest = data = self._compose(missing, queued)
        try:
            rest = write_to_stderr(data, deadline)
        finally:
            written = len(data) - len(rest)
            if written:
                self._is_torn = data[written - 1 : written] != b"\n"
            with self._lock:
                self._queued_bytes -= sum(map(len, lines))
                if rest:
                    refused = min(rest.count(b"\n"), len(lines))
                    missing += sum(entry.lines for entry in queued if isinstance(entry, _Gap))
                    self._refused_lines += missing + refused
                    metrics.LOG_LINES_LOST.inc(refused)
            self._is_stalled = False
            for entry in queued:
                if isinstance(entry, threading.Event):
                    entry.set()

    def _compose(self, missing: int, queued: list[bytes | _Gap | threading.Event]) -> bytes:
        pieces = [b"\n"] if self._is_torn else []
        if missing:
            pieces.append(self._report(missing))
        for entry in queued:
            if isinstance(entry, bytes):
                pieces.append(entry)
            elif isinstance(entry, _Gap):
                pieces.append(self._report(entry.lines))
        return b"".join(pieces)

    def _report(self, lines: int) -> bytes:
        message = "lines of the log and the audit are missing here, because stderr accepted no data: %d"
        record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, message, (lines,), None)
        return self.formatter.format(record).encode() + b"\n"
