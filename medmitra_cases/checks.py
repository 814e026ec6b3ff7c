"""Compares a database with what the service needs of it, and says in plain words what is missing."""

from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

from psycopg2.extensions import connection as Connection

from medmitra_cases.catalogue import Column, Session, describe_cases, describe_session
from medmitra_cases.dao import SELECT_CASES
from medmitra_cases.queries import sql_directory

OLDEST_POSTGRES = 15

# The types each column may have for the answer to come out as the contract says.
_TEXT = frozenset({"text", "character varying"})
COLUMN_TYPES = {
    "id": frozenset({"bigint", "integer"}),
    "case_id": _TEXT | {"uuid"},
    "user_id": frozenset({"uuid"}),
    "patient_name": _TEXT,
    "patient_age": frozenset({"smallint", "integer", "bigint"}),
    "patient_gender": _TEXT,
    "case_summary": _TEXT,
    "status": _TEXT,
    "created_at": frozenset({"timestamp with time zone"}),
    "updated_at": frozenset({"timestamp with time zone"}),
}

# With every other way switched off, the plan shows whether an index allows the way we want. The planner's own
# choice says less: it never uses an index on an empty table.
_ONLY_INDEX_SCANS = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
)
_NOBODY = "00000000-0000-0000-0000-000000000000"


class Verdict(Enum):
    """How a finding counts: as needed, worth a change, or in the way of serving."""

    GOOD = "✓"
    ADVICE = "!"
    MISSING = "✗"


class Finding(NamedTuple):
    """One thing looked at: how it counts, what was seen, and what to do where it is not good."""

    verdict: Verdict
    seen: str
    hint: str


def check_database(connection: Connection) -> Iterator[Finding]:
    """Look at everything the service needs, in the order in which one would mend it.

    Args:
        connection: A connection as the service would make it.

    Yields:
        What was found; nothing more after something without which the rest cannot be looked at.

    Raises:
        psycopg2.Error: The database failed.
    """
    session = describe_session(connection)
    columns = describe_cases(connection)
    yield _version(session)
    yield _relation(columns)
    if not columns:
        return
    yield _types(columns)
    rights = _rights(columns)
    yield rights
    if rights.verdict is Verdict.GOOD and {column.name for column in columns} >= COLUMN_TYPES.keys():
        yield _index(connection, columns[0].kind)
    yield _no_more_rights(session)
    yield _timeout(session)


def _version(session: Session) -> Finding:
    new_enough = session.server_version_number >= OLDEST_POSTGRES * 10_000
    return Finding(
        Verdict.GOOD if new_enough else Verdict.MISSING,
        f"Postgres {session.server_version}, database {session.database_name}, role {session.role_name}",
        f"the service needs Postgres {OLDEST_POSTGRES} or newer",
    )


def _relation(columns: list[Column]) -> Finding:
    if columns:
        return Finding(Verdict.GOOD, f"medmitra.cases is a {columns[0].kind}", "")
    return Finding(
        Verdict.MISSING,
        "there is no table or view medmitra.cases",
        "medmitra-cases init-db makes the table; where the product's own table public.cases is to be served,"
        f" psql -f {sql_directory() / 'existing_table.sql'} makes a view of it",
    )


def _types(columns: list[Column]) -> Finding:
    found = {column.name: column.type for column in columns}
    problems = [f"{name} is missing" for name in COLUMN_TYPES if name not in found] + [
        f"{name} is {found[name]}, not {' or '.join(sorted(types))}"
        for name, types in COLUMN_TYPES.items()
        if name in found and found[name] not in types
    ]
    return Finding(
        Verdict.MISSING if problems else Verdict.GOOD,
        "; ".join(problems) or "all columns are there and of the right types",
        f"compare with {sql_directory() / 'schema.sql'}",
    )


def _rights(columns: list[Column]) -> Finding:
    unreadable = [column.name for column in columns if column.name in COLUMN_TYPES and not column.readable]
    return Finding(
        Verdict.MISSING if unreadable else Verdict.GOOD,
        f"the role may not read {', '.join(unreadable)}" if unreadable else "the role may read all it needs",
        f"psql -f {sql_directory() / 'roles.sql'} makes the role medmitra_cases that may",
    )


def _index(connection: Connection, kind: str) -> Finding:
    with connection.cursor() as cursor:
        cursor.execute(f"{_ONLY_INDEX_SCANS}; EXPLAIN (FORMAT JSON) {SELECT_CASES}", {"user_id": _NOBODY})
        nodes = list(_nodes(cursor.fetchall()[0][0][0]["Plan"]))
    in_order = not any("Sort" in node["Node Type"] for node in nodes)
    if in_order and any("Index Cond" in node for node in nodes):
        return Finding(Verdict.GOOD, "an index gives a doctor's cases in insertion order", "")
    file = "schema.sql" if kind == "table" else "existing_table_index.sql"
    return Finding(
        Verdict.MISSING,
        "no index gives a doctor's cases in insertion order, so every request reads or sorts too much",
        f"psql -f {sql_directory() / file}",
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _no_more_rights(session: Session) -> Finding:
    return Finding(
        Verdict.ADVICE if session.may_write else Verdict.GOOD,
        f"the role may {'also write' if session.may_write else 'not write'} medmitra.cases",
        f"let the service log in as the role that {sql_directory() / 'roles.sql'} makes",
    )


def _timeout(session: Session) -> Finding:
    if session.statement_timeout != "0":
        return Finding(Verdict.GOOD, f"queries are cancelled after {session.statement_timeout}", "")
    return Finding(
        Verdict.ADVICE,
        "no statement_timeout: a query that hangs holds its thread for ever",
        f"ALTER ROLE {session.role_name} SET statement_timeout = '5s'",
    )
