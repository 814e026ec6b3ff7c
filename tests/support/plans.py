"""Asks Postgres how it runs the statement for everything but the plain list, and takes the answer apart."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import psycopg2

from medmitra_cases.dao.statements import SELECT_MATCHING_CASES, SET_USER_ID, BoundQuery
from medmitra_cases.models import CaseQuery
from tests.support.factories import DOCTOR, CasesDatabase, execute


class Plan(NamedTuple):
    """A plan that was followed, once.

    Attributes:
        page: The nodes that give the cases.
        beside: The nodes that give what goes with them: the cursor case, and the page info.
    """

    page: list[dict[str, Any]]
    beside: list[dict[str, Any]]

    @classmethod
    def of(cls, database: CasesDatabase, query: CaseQuery) -> "Plan":
        """Run a query as the service would."""
        bound = BoundQuery(query, DOCTOR, row_versions=True).parameters()
        with closing(psycopg2.connect(database.service_dsn)) as service:
            explain = "EXPLAIN (ANALYZE, BUFFERS OFF, COSTS OFF, TIMING OFF, FORMAT JSON)"
            statement = f"{SET_USER_ID};\n{explain} {SELECT_MATCHING_CASES}"
            (((whole,),),) = execute(service, statement, bound)
        every, page = list(_nodes(whole["Plan"], beside=True)), list(_nodes(whole["Plan"], beside=False))
        return cls(page, [node for node in every if node not in page])

    @property
    def rows_read(self) -> int:
        """How many rows of the table were looked at, whatever became of them."""
        scans = [node for node in (*self.page, *self.beside) if "Relation Name" in node]
        return sum(
            int(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)))
            for node in scans
        )

    def __str__(self) -> str:
        """Write it as Postgres does, but without the nodes' children, which are nodes themselves."""
        return json.dumps([{**node, "Plans": None} for node in (*self.page, *self.beside)], indent=1)


def _nodes(plan: dict[str, Any], *, beside: bool) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        if beside or child["Parent Relationship"] != "InitPlan":
            yield from _nodes(child, beside=beside)
