"""The response to a request for cases: 304, the whole list, or a stream; with ``ETag`` and ``Link``."""

from medmitra_cases.responses.cases import CasesRequest, respond
from medmitra_cases.responses.limits import LIMITS, NO_LIMITS

__all__ = ["LIMITS", "NO_LIMITS", "CasesRequest", "respond"]
