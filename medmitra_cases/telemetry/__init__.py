"""The log, the metrics and the request id."""

from medmitra_cases.telemetry import logs, metrics, request_id
from medmitra_cases.telemetry.fork import call_after_fork
from medmitra_cases.telemetry.handler import LineHandler
from medmitra_cases.telemetry.request_id import VALID_ID

__all__ = ["VALID_ID", "LineHandler", "call_after_fork", "logs", "metrics", "request_id"]
