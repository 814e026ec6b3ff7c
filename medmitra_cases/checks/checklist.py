"""Compares a database with what the service needs of it, and says in plain words what is missing."""

from collections.abc import Iterator

from psycopg2.extensions import connection as Connection

from medmitra_cases.checks.catalogue import (
    Column,
    Session,
    Source,
    describe_cases,
    describe_session,
    describe_source,
)
from medmitra_cases.checks.finding import Finding, Verdict
from medmitra_cases.checks.plan import has_row_versions, reads_in_index_order
from medmitra_cases.checks.role import check_role, check_row_filter
from medmitra_cases.database import psql, sql_directory

MIN_POSTGRES_VERSION = 15

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


def check_database(connection: Connection, *, row_versions: bool) -> Iterator[Finding]:
    """Look at everything the service needs, in the order in which one would mend it.

    Args:
        connection: A connection as the service would make it.
        row_versions: Whether entity tags are to be made of the rows' versions.

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
    source = describe_source(connection)
    types, rights = _types(columns), _rights(columns)
    yield types
    yield rights
    if source.tables_with_row_security:
        yield _row_security(source.tables_with_row_security)
    if types.verdict is rights.verdict is Verdict.GOOD:
        yield _index(connection, columns[0].kind, source)
        if row_versions:
            yield _row_versions(connection)
        yield check_row_filter(connection)
    yield _letters(session)
    yield from check_role(session, source)


def _version(session: Session) -> Finding:
    new_enough = session.server_version_number >= MIN_POSTGRES_VERSION * 10_000
    return Finding(
        Verdict.GOOD if new_enough else Verdict.MISSING,
        f"Postgres {session.server_version}, database {session.database_name}, role {session.role_name}",
        f"the service needs Postgres {MIN_POSTGRES_VERSION} or newer",
    )


def _relation(columns: list[Column]) -> Finding:
    if columns:
        return Finding(Verdict.GOOD, f"medmitra.cases is a {columns[0].kind}", "")
    return Finding(
        Verdict.MISSING,
        "there is no table or view medmitra.cases",
        "medmitra-cases init-db makes the table; to serve the product's own table public.cases instead:"
        f" {psql('existing_table.sql')}",
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
        f"let the service log in as the role medmitra_cases: {psql('roles.sql')}",
    )


def _row_security(tables: str) -> Finding:
    return Finding(
        Verdict.ADVICE,
        f"row level security of {tables} may hide cases from the service",
        "a view reads as its owner: let that be the table's owner, or see that a policy admits it",
    )


def _index(connection: Connection, kind: str, source: Source) -> Finding:
    if reads_in_index_order(connection):
        return Finding(Verdict.GOOD, "an index gives a doctor's cases in insertion order", "")
    build = psql("schema.sql" if kind == "table" else "existing_table_index.sql")
    left_behind = source.invalid_index and (
        f"unless it is being built right now, DROP INDEX CONCURRENTLY {source.invalid_index}; then "
    )
    return Finding(
        Verdict.MISSING,
        "no index gives a doctor's cases in insertion order, so every request reads or sorts too much",
        f"{left_behind or ''}{build}",
    )


def _row_versions(connection: Connection) -> Finding:
    there = has_row_versions(connection)
    return Finding(
        Verdict.GOOD if there else Verdict.MISSING,
        f"the rows' versions (xmin) {'make' if there else 'cannot be read to make'} ETags",
        f"{psql('roles.sql')}, before it for a view {psql('existing_table.sql')};"
        " or, where there is no xmin, MEDMITRA_ETAG_SOURCE=body",
    )


def _letters(session: Session) -> Finding:
    return Finding(
        Verdict.GOOD if session.folds_unicode else Verdict.ADVICE,
        f"search takes É {'and é for the same letter' if session.folds_unicode else 'and é for two letters'}",
        "the database's locale is C, which knows the letters A to Z only; it is chosen by CREATE DATABASE",
    )
