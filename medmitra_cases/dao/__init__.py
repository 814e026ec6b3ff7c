"""The DAO: a ``CaseQuery`` in, rows and their version out, by the statements of ``sql/``."""

from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.definition import read_definition
from medmitra_cases.dao.fetch import check_readable
from medmitra_cases.dao.reader import CaseReader
from medmitra_cases.dao.statements import SELECT_CASES, SELECT_VERSION, probe_query

__all__ = [
    "SELECT_CASES",
    "SELECT_VERSION",
    "CaseBatches",
    "CaseReader",
    "check_readable",
    "probe_query",
    "read_definition",
]
