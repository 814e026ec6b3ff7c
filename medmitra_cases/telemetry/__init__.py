"""The log, the metrics and the request id."""

from medmitra_cases.telemetry import logs, metrics, request_id
from medmitra_cases.telemetry.fork import call_after_fork, reset_if_forked
from medmitra_cases.telemetry.handler import LineHandler
from medmitra_cases.telemetry.request_id import VALID_ID

__all__ = ["VALID_ID", "LineHandler", "call_after_fork", "logs", "metrics", "request_id", "reset_if_forked"]
