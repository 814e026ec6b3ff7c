"""The parts around every request: request id, error handlers, header fields, CORS, audit."""

from medmitra_cases.web import audit, cors, error_handlers, headers
from medmitra_cases.web.addresses import client_address
from medmitra_cases.web.application import RECEIVED_AT, Application
from medmitra_cases.web.audit import BROKEN_OFF
from medmitra_cases.web.error_handlers import ERROR_KIND, broken_off, report_fault
from medmitra_cases.web.headers import CACHE_HEADERS, SECURITY_HEADERS
from medmitra_cases.web.preferences import STRICT_APPLIED, is_strict

__all__ = [
    "BROKEN_OFF",
    "CACHE_HEADERS",
    "ERROR_KIND",
    "RECEIVED_AT",
    "SECURITY_HEADERS",
    "STRICT_APPLIED",
    "Application",
    "audit",
    "broken_off",
    "client_address",
    "cors",
    "error_handlers",
    "headers",
    "is_strict",
    "report_fault",
]
