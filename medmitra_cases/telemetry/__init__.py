"""The log, the metrics, the request id, and what concerns the process: forks, signals and waiting."""

from medmitra_cases.telemetry import logs, metrics, request_id
from medmitra_cases.telemetry.fork import call_after_fork, reset_if_forked
from medmitra_cases.telemetry.handler import LineHandler
from medmitra_cases.telemetry.request_id import VALID_ID
from medmitra_cases.telemetry.signals import (
    END_SIGNALS,
    exit_on_signals,
    handle_signals,
    is_exit_requested,
)
from medmitra_cases.telemetry.waiting import call_blocking, scheduler

__all__ = [
    "END_SIGNALS",
    "VALID_ID",
    "LineHandler",
    "call_after_fork",
    "call_blocking",
    "exit_on_signals",
    "handle_signals",
    "is_exit_requested",
    "logs",
    "metrics",
    "request_id",
    "reset_if_forked",
    "scheduler",
]
