"""The response to a request for cases: 304, the whole list, or a stream; with ``ETag`` and ``Link``."""

from medmitra_cases.responses.cases import CasesRequest, respond

__all__ = ["CasesRequest", "respond"]
