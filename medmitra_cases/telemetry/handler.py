"""A log handler whose callers never wait for stderr."""

import logging

from medmitra_cases.telemetry.writer import LineWriter


class LineHandler(logging.Handler):
    """Writes each record as a line to stderr, through one writer for all handlers.

    Attributes:
        writer: The writer of this process.
    """

    writer = LineWriter()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record for the writer's thread."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self.writer.put(line)

    def flush(self) -> None:
        """Wait until all queued lines are written; ``logging`` calls this also at the end of the process."""
        self.writer.flush()
