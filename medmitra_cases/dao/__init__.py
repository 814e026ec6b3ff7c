"""The DAO: a ``CaseQuery`` in, rows and their version out, by the statements of ``sql/``."""

from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.fetch import fetch_cases, fetch_version, read_nothing
from medmitra_cases.dao.statements import NOBODYS, SELECT_CASES, SELECT_VERSION, values

__all__ = [
    "NOBODYS",
    "SELECT_CASES",
    "SELECT_VERSION",
    "CaseBatches",
    "fetch_cases",
    "fetch_version",
    "read_nothing",
    "values",
]
