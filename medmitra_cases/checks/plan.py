"""How Postgres would run the query."""

from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from medmitra_cases.dao import SELECT_CASES, SELECT_VERSION, probe_query

# With every other way switched off, the plan shows whether an index allows the way we want. The planner's own
# choice says less: it never uses an index on an empty table.
_ONLY_INDEX_SCANS = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
)


def reads_in_index_order(connection: Connection) -> bool:
    """Tell whether an index gives one doctor's cases in insertion order.

    Args:
        connection: A connection in autocommit mode that may read ``medmitra.cases``.

    Returns:
        Whether the planner can do with an index alone, without a sort.

    Raises:
        psycopg2.Error: The database failed.
    """
    with connection.cursor() as cursor:
        # One string is one transaction, after which the settings are as before.
        cursor.execute(
            f"{_ONLY_INDEX_SCANS}; EXPLAIN (FORMAT JSON) {SELECT_CASES}",
            probe_query(row_versions=False).parameters(),
        )
        nodes = list(_nodes(cursor.fetchall()[0][0][0]["Plan"]))
    return any("Index Cond" in node for node in nodes) and not any(
        "Sort" in node["Node Type"] for node in nodes
    )


def has_row_versions(connection: Connection) -> bool:
    """Tell whether entity tags can be made of the rows' versions.

    Args:
        connection: A connection in autocommit mode that may read the columns of ``medmitra.cases``.

    Returns:
        Whether there are any, and this role may read them.

    Raises:
        psycopg2.Error: The database failed.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {SELECT_VERSION}", probe_query(row_versions=True).parameters())
    except (psycopg2.ProgrammingError, psycopg2.NotSupportedError):  # no such column, function or right
        return False
    return True


def filters_by_doctor(connection: Connection) -> bool:
    """Tell whether Postgres shows this role only the cases of the doctor that ``set_user_id`` names.

    Args:
        connection: A connection that may read ``medmitra.cases``.

    Returns:
        Whether it adds that condition to a query that has none.

    Raises:
        psycopg2.Error: The database failed.
    """
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (FORMAT JSON) SELECT FROM medmitra.cases")
        return "medmitra.user_id" in str(cursor.fetchall()[0][0])


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
