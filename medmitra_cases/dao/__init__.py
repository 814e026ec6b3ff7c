"""The DAO: a ``CaseQuery`` in, rows and their version out, by the statements of ``sql/``."""

from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.fetch import check_readable, fetch_cases, fetch_version
from medmitra_cases.dao.statements import PROBE_QUERY, SELECT_CASES, SELECT_VERSION, values

__all__ = [
    "PROBE_QUERY",
    "SELECT_CASES",
    "SELECT_VERSION",
    "CaseBatches",
    "check_readable",
    "fetch_cases",
    "fetch_version",
    "values",
]
