"""Reads the query plan of the statement that fetches filtered, sorted and paged lists."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import psycopg2

from medmitra_cases.dao.statements import SELECT_MATCHING_CASES, SET_USER_ID, BoundQuery
from medmitra_cases.models import CaseQuery
from tests.support.factories import DOCTOR, CasesDatabase, execute


class Plan(NamedTuple):
    """The plan of a statement that Postgres has executed once.

    Attributes:
        page: The nodes that produce the cases.
        other: The nodes that produce the cursor case and the page info.
    """

    page: list[dict[str, Any]]
    other: list[dict[str, Any]]

    @classmethod
    def of(cls, database: CasesDatabase, query: CaseQuery) -> "Plan":
        """Run a query as the service does, and return its plan."""
        bound = BoundQuery(query, DOCTOR, row_versions=True).parameters()
        with closing(psycopg2.connect(database.service_dsn)) as service:
            explain = "EXPLAIN (ANALYZE, BUFFERS OFF, COSTS OFF, TIMING OFF, FORMAT JSON)"
            statement = f"{SET_USER_ID};\n{explain} {SELECT_MATCHING_CASES}"
            (((explained,),),) = execute(service, statement, bound)
        root = explained["Plan"]
        page = list(_nodes(root, init_plans=False))
        return cls(page, [node for node in _nodes(root, init_plans=True) if node not in page])

    @property
    def rows_read(self) -> int:
        """Return how many rows of the table were read, including the rows that a filter removed."""
        scans = [node for node in (*self.page, *self.other) if "Relation Name" in node]
        return sum(
            int(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)))
            for node in scans
        )

    def __str__(self) -> str:
        """Return the nodes as JSON; their children are left out, because they are in the list themselves."""
        return json.dumps([{**node, "Plans": None} for node in (*self.page, *self.other)], indent=1)


def _nodes(plan: dict[str, Any], *, init_plans: bool) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        if init_plans or child["Parent Relationship"] != "InitPlan":
            yield from _nodes(child, init_plans=init_plans)
