"""The service's own log: one line on stderr for each event, as text or as JSON."""

import logging
import re
from datetime import datetime, timezone

import msgspec

from medmitra_cases.telemetry import request_id
from medmitra_cases.telemetry.handler import LineHandler

# Terminals interpret these as commands.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class TextFormatter(logging.Formatter):
    """Writes a record as one line of text: control characters, such as line breaks, are escaped."""

    def __init__(self) -> None:
        """Set the format of a line."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """Return the record's time in UTC, to the millisecond."""
        return _utc_time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line that names the current request."""
        line = super().format(record)
        current_id = request_id.current()
        if current_id and f"request {current_id}" not in line:
            line += f" [request {current_id}]"
        return _CONTROL_CHARACTER.sub(lambda match: ascii(match[0])[1:-1], _escape_surrogates(line))


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON.

    The object has ``time``, ``level``, ``logger``, ``request_id`` (null outside of requests) and ``message``,
    and ``traceback`` if there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a JSON object."""
        line: dict[str, object] = {
            "time": _utc_time(record),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id.current() or None,
            "message": _escape_surrogates(record.getMessage()),
        }
        if record.exc_info:
            line["traceback"] = _escape_surrogates(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


def _escape_surrogates(text: str) -> str:
    """Escape lone surrogates. They stand for bytes that were not UTF-8, and cannot be encoded."""
    return text.encode("utf-8", "backslashreplace").decode()


def _utc_time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, timezone.utc)


def configure(log_format: str) -> None:
    """Write the log of the whole process, including waitress, to stderr.

    Args:
        log_format: ``text`` or ``json``.
    """
    formatter = JsonFormatter() if log_format == "json" else TextFormatter()
    handler = LineHandler()
    handler.setFormatter(formatter)
    handler.writer.formatter = formatter
    logging.basicConfig(level=logging.INFO, handlers=[handler])
