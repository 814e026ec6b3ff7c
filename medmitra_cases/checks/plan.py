"""Reads from the query plan how Postgres would run a query."""

from collections.abc import Iterator
from typing import Any

import psycopg2

from medmitra_cases.dao import SELECT_CASES, SELECT_VERSION, definition_of, probe_query
from medmitra_cases.database import Connection

# With all other scans switched off, the plan shows whether the index scan is possible. The planner's own
# choice does not show it: the planner never uses an index on an empty table.
_ONLY_INDEX_SCANS = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
)


def reads_in_index_order(connection: Connection) -> bool | None:
    """Return whether an index gives the cases of one doctor in insertion order.

    Args:
        connection: A connection in autocommit mode that may read ``medmitra.cases``.

    Returns:
        Whether the plan uses an index, and no sort; None if another server reads the cases.

    Raises:
        psycopg2.Error: The database failed.
    """
    if definition_of(connection).is_distributed:
        return None
    with connection.cursor() as cursor:
        # One string runs as one transaction, after which SET LOCAL has no effect.
        cursor.execute(
            f"{_ONLY_INDEX_SCANS}; EXPLAIN (FORMAT JSON) {SELECT_CASES}",
            probe_query(row_versions=False).parameters(),
        )
        nodes = list(_nodes(cursor.fetchall()[0][0][0]["Plan"]))
    if any(node["Node Type"] == "Foreign Scan" for node in nodes):
        return None
    return any("Index Cond" in node for node in nodes) and not any(
        "Sort" in node["Node Type"] for node in nodes
    )


def has_row_versions(connection: Connection) -> bool:
    """Return whether entity tags can be made of row versions.

    Args:
        connection: A connection in autocommit mode that may read the columns of ``medmitra.cases``.

    Returns:
        Whether ``medmitra.cases`` has row versions that this role may read.

    Raises:
        psycopg2.Error: The database failed.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {SELECT_VERSION}", probe_query(row_versions=True).parameters())
    except (psycopg2.ProgrammingError, psycopg2.NotSupportedError):  # no such column, function or right
        return False
    return True


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
