"""Compares a database with the needs of the service, and describes the differences."""

from collections.abc import Iterator

from medmitra_cases.checks.catalogue import (
    Column,
    Session,
    Source,
    describe_cases,
    describe_connections,
    describe_session,
    describe_source,
)
from medmitra_cases.checks.columns import check_rights, check_times, check_types
from medmitra_cases.checks.etags import check_row_versions
from medmitra_cases.checks.finding import OWNER_URL, Finding, Verdict, psql_as_owner
from medmitra_cases.checks.plan import reads_in_index_order
from medmitra_cases.checks.role import check_role, check_row_filter
from medmitra_cases.database import Connection

MIN_POSTGRES_VERSION = 15


def check_database(
    connection: Connection, *, row_versions: bool | None, max_connections: int
) -> Iterator[Finding]:
    """Check the needs of the service, in the order in which an operator would repair them.

    Args:
        connection: A connection with the role and the settings of the service.
        row_versions: Whether entity tags are to be made of row versions; None if the definition decides.
        max_connections: The maximum number of connections of a process.

    Yields:
        One finding for each check. Checks that depend on a failed one are left out.

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
    types, rights = check_types(columns), check_rights(columns)
    yield types
    yield rights
    if source.closed_tables:
        yield _no_policy(source.closed_tables)
    if source.guarded_tables:
        yield _row_security(source.guarded_tables)
    if types.verdict is rights.verdict is Verdict.GOOD and not source.closed_tables:
        yield _index(connection, columns[0].kind, source)
        if source.unordered_sequence:
            yield _sequence(source.unordered_sequence)
        if source.any_time:
            yield check_times()
        if row_versions is not False:
            yield check_row_versions(connection, required=row_versions is True)
        yield check_row_filter(connection, session)
    yield _letters(session)
    yield from check_role(session, source, describe_connections(connection), max_connections)


def _version(session: Session) -> Finding:
    new_enough = session.server_version_number >= MIN_POSTGRES_VERSION * 10_000
    return Finding(
        Verdict.GOOD if new_enough else Verdict.MISSING,
        f"Postgres {session.server_version}, database {session.database_name}, role {session.role_name}"
        + ("" if new_enough else ": this version is too old"),
        f"upgrade to Postgres {MIN_POSTGRES_VERSION} or newer",
    )


def _relation(columns: list[Column]) -> Finding:
    if columns:
        return Finding(Verdict.GOOD, f"medmitra.cases is a {columns[0].kind}", "")
    return Finding(
        Verdict.MISSING,
        "there is no table or view medmitra.cases",
        f'to create the table, run DATABASE_URL="{OWNER_URL}" medmitra-cases init-db;'
        f" to serve the existing table public.cases instead, run {psql_as_owner('existing_table.sql')}",
    )


def _no_policy(tables: str) -> Finding:
    return Finding(
        Verdict.MISSING,
        f"row level security of {tables} hides all cases: no policy admits the role that reads the table",
        f"if medmitra.cases is a table, run {psql_as_owner('roles.sql')};"
        " if it is a view, make the owner of the table the owner of the view, or create a policy for the"
        " owner of the view",
    )


def _row_security(tables: str) -> Finding:
    return Finding(
        Verdict.ADVICE,
        f"row level security of {tables} may hide cases from the service",
        "create a policy for the role that reads the table (through a view, the owner of the view does), or"
        " make the owner of the table the owner of the view",
    )


def _index(connection: Connection, kind: str, source: Source) -> Finding:
    in_order = reads_in_index_order(connection)
    if in_order is None:
        return Finding(
            Verdict.ADVICE,
            "another server reads the cases: its index cannot be checked here",
            "make sure that the table on that server has an index on (user_id, id)",
        )
    if in_order:
        return Finding(Verdict.GOOD, "an index returns the cases of one doctor in insertion order", "")
    build = psql_as_owner("schema.sql" if kind == "table" else "existing_table_index.sql")
    drop = source.invalid_index and (
        "unless it is being built right now, drop the invalid index as the owner with"
        f" DROP INDEX CONCURRENTLY {source.invalid_index}; then "
    )
    return Finding(
        Verdict.MISSING,
        "no index returns the cases of one doctor in insertion order: requests read or sort too many rows",
        f"{drop or ''}create the index with {build}",
    )


def _sequence(name: str) -> Finding:
    return Finding(
        Verdict.ADVICE,
        f"the sequence {name} does not count in insertion order: a session takes several numbers in advance"
        " (CACHE above 1), or the numbers go down or repeat",
        f"as the owner, run ALTER SEQUENCE {name} INCREMENT BY 1 CACHE 1 NO CYCLE",
    )


def _letters(session: Session) -> Finding:
    return Finding(
        Verdict.GOOD if session.folds_unicode else Verdict.ADVICE,
        f"search treats É and é as {'the same letter' if session.folds_unicode else 'different letters'}",
        "the database has the locale C, which ignores case only from A to Z; CREATE DATABASE sets the locale",
    )
