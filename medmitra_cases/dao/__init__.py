"""The DAO: a ``CaseQuery`` in, rows and their version out, by the statements of ``sql/``."""

from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.definition import definition_of
from medmitra_cases.dao.fetch import check_readable
from medmitra_cases.dao.reader import CaseReader
from medmitra_cases.dao.statements import SELECT_CASES, SELECT_VERSION, probe_query
from medmitra_cases.dao.transactions import transaction

__all__ = [
    "SELECT_CASES",
    "SELECT_VERSION",
    "CaseBatches",
    "CaseReader",
    "check_readable",
    "definition_of",
    "probe_query",
    "transaction",
]
