"""Checks the role that the service logs in as."""

from collections.abc import Iterator

from psycopg2.errors import InvalidTextRepresentation

from medmitra_cases.checks.catalogue import Connections, Session, Source
from medmitra_cases.checks.finding import Finding, Verdict, psql_as_owner
from medmitra_cases.dao import definition_of, probe_query, transaction
from medmitra_cases.database import MAX_STATEMENT_SECONDS, Connection, read_sql, sql_directory

# Above this cost the planner prefers a bitmap scan and a sort.
MAX_RANDOM_PAGE_COST = 2.0

# Set instead of a doctor's UUID. The condition of roles.sql refuses it, and Postgres logs that error.
_NO_UUID = "medmitra-cases check"


def check_row_filter(connection: Connection, session: Session) -> Finding:
    """Check whether the database itself separates the cases of different doctors.

    Args:
        connection: A connection with the role of the service, which may read ``medmitra.cases``.
        session: The facts about its session.

    Returns:
        The finding.

    Raises:
        psycopg2.Error: The database failed.
    """
    is_distributed = definition_of(connection).is_distributed
    if is_distributed and not session.sets_reach_shards:
        return Finding(
            Verdict.MISSING,
            "medmitra.cases is distributed, but SET LOCAL does not reach its shards: all lists are empty",
            f"run {psql_as_owner('distributed.sql')}",
        )
    filtered = _filters_by_doctor(connection)
    return Finding(
        Verdict.GOOD if filtered else Verdict.MISSING,
        f"the role sees the cases of {'one doctor at a time' if filtered else 'all doctors at once'}",
        "let the service log in as the role medmitra_cases, which the owner of medmitra.cases creates with"
        f" {psql_as_owner('roles.sql')};"
        f" a view also needs the condition in {sql_directory() / 'existing_table.sql'}",
    )


def _filters_by_doctor(connection: Connection) -> bool:
    """Try it, also on an empty table: a plan need not show the condition, for example that of partitions."""
    probe = probe_query(row_versions=False)
    statements = read_sql("set_user_id"), read_sql("sees_other_doctors")
    values = {"subject": probe.subject, "user_id": probe.subject}
    with transaction(connection, statements, values) as cursor:
        if cursor.fetchall() == [(True,)]:
            return False
    try:
        with transaction(connection, probe.statements.read, {**probe.parameters(), "subject": _NO_UUID}):
            return False
    except InvalidTextRepresentation:
        return True


def check_role(
    session: Session, source: Source, connections: Connections, max_connections: int
) -> Iterator[Finding]:
    """Check the settings and the rights of the role.

    Args:
        session: The facts about a session of the role.
        source: The facts about ``medmitra.cases``, as the role sees it.
        connections: The limits of the role.
        max_connections: The maximum number of connections of a process.

    Yields:
        One finding for each check.
    """
    yield _planner(session)
    yield _write_rights(source)
    yield _timeout(session)
    yield _connection_limit(session, connections, max_connections)


def _planner(session: Session) -> Finding:
    is_costly = session.random_page_cost > MAX_RANDOM_PAGE_COST
    return Finding(
        Verdict.ADVICE if is_costly else Verdict.GOOD,
        f"random_page_cost is {session.random_page_cost:g}"
        + (": the planner may sort instead of using the index" if is_costly else ""),
        "unless the data is on hard disks, run as the owner"
        f" ALTER ROLE {session.role_name} SET random_page_cost = 1.1",
    )


def _write_rights(source: Source) -> Finding:
    return Finding(
        Verdict.ADVICE if source.may_write else Verdict.GOOD,
        f"the role may{'' if source.may_write else ' not'} write to medmitra.cases; the service only reads",
        "let the service log in as the role medmitra_cases, which the owner of medmitra.cases creates with"
        f" {psql_as_owner('roles.sql')}",
    )


def _timeout(session: Session) -> Finding:
    seconds = session.statement_seconds
    if seconds is not None and seconds <= MAX_STATEMENT_SECONDS:
        return Finding(Verdict.GOOD, f"Postgres cancels a query after {session.statement_timeout}", "")
    limit = "0 (no limit)" if seconds is None else session.statement_timeout
    return Finding(
        Verdict.ADVICE,
        f"statement_timeout is {limit}: the service sets {MAX_STATEMENT_SECONDS:g} s for its statements, but"
        " nothing does so for other clients with this role",
        "as the owner, run"
        f" ALTER ROLE {session.role_name} SET statement_timeout = '{MAX_STATEMENT_SECONDS:g}s'",
    )


def _connection_limit(session: Session, connections: Connections, needed: int) -> Finding:
    limits = {
        f"the CONNECTION LIMIT of role {session.role_name}": connections.role_limit,
        f"the CONNECTION LIMIT of database {session.database_name}": connections.database_limit,
        "max_connections, without the reserved ones and those of other roles,": connections.free,
    }
    limit, name = min((limit, name) for name, limit in limits.items() if limit is not None)
    wanted = f"a process of the service uses up to {needed} connections (2 x MEDMITRA_THREADS + 1)"
    if limit >= needed:
        return Finding(Verdict.GOOD, f"{wanted}; {name} allows {limit}, for all processes together", "")
    return Finding(
        Verdict.ADVICE,
        f"{wanted}, but {name} allows only {limit}: requests wait for each other",
        f"raise the limit to {needed} for each process, lower MEDMITRA_THREADS, or run PgBouncer in"
        " transaction mode in front of Postgres",
    )
