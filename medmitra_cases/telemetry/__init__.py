"""The log, the metrics and the request id."""

from medmitra_cases.telemetry import logs, metrics, request_id
from medmitra_cases.telemetry.handler import LineHandler
from medmitra_cases.telemetry.request_id import SANE

__all__ = ["SANE", "LineHandler", "logs", "metrics", "request_id"]
