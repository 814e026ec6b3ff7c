"""What a request for cases gets: 304, the whole list, or a stream; with ``ETag`` and ``Link``."""

from medmitra_cases.responses.cases import CasesRequest, respond

__all__ = ["CasesRequest", "respond"]
