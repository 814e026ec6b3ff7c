"""The service's own log: one line on stderr for each event, as text or as JSON."""

import logging
import re
from datetime import datetime, timezone

import msgspec

from medmitra_cases.telemetry import request_id
from medmitra_cases.telemetry.handler import LineHandler

# Terminals obey them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class TextFormatter(logging.Formatter):
    """Writes a record as one line of text: control characters, such as line breaks, are escaped."""

    def __init__(self) -> None:
        """Fix what a line looks like."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """Write the moment.

        Args:
            record: What was logged.
            datefmt: Counts for nothing.

        Returns:
            The moment in UTC, to the millisecond.
        """
        return _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def format(self, record: logging.LogRecord) -> str:
        """Write a record.

        Args:
            record: What was logged.

        Returns:
            The line. It names the request that it was logged in.
        """
        line = super().format(record)
        name = request_id.current()
        if name and f"request {name}" not in line:
            line += f" [request {name}]"
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], _in_utf_8(line))


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record.

        Args:
            record: What was logged.

        Returns:
            An object with ``time``, ``level``, ``logger``, ``request_id`` (null outside of requests) and
            ``message``, and ``traceback`` if there is one.
        """
        line: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id.current() or None,
            "message": _in_utf_8(record.getMessage()),
        }
        if record.exc_info:
            line["traceback"] = _in_utf_8(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


def _in_utf_8(text: str) -> str:
    """Escape lone surrogates, which stand for bytes that were not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, timezone.utc)


def configure(log_format: str) -> None:
    """Let all loggers of the process, waitress's among them, write to stderr.

    Args:
        log_format: ``text`` or ``json``.
    """
    handler = LineHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
