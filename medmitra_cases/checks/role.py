"""Checks the role that the service logs in as."""

from collections.abc import Iterator

from psycopg2.extensions import connection as Connection

from medmitra_cases.checks.catalogue import Session, Source
from medmitra_cases.checks.finding import Finding, Verdict
from medmitra_cases.checks.plan import filters_by_doctor
from medmitra_cases.database import psql, sql_directory

# Above this cost the planner prefers a bitmap scan and a sort.
MAX_RANDOM_PAGE_COST = 2.0


def check_row_filter(connection: Connection) -> Finding:
    """Check whether the database itself separates the cases of different doctors.

    Args:
        connection: A connection with the role of the service, which may read ``medmitra.cases``.

    Returns:
        The finding.

    Raises:
        psycopg2.Error: The database failed.
    """
    filtered = filters_by_doctor(connection)
    return Finding(
        Verdict.GOOD if filtered else Verdict.ADVICE,
        f"the role sees the cases of {'one doctor at a time' if filtered else 'all doctors at once'}",
        "let the service log in as the role medmitra_cases, which the owner of medmitra.cases creates with"
        f" {psql('roles.sql')}; a view also needs the condition in {sql_directory() / 'existing_table.sql'}",
    )


def check_role(session: Session, source: Source) -> Iterator[Finding]:
    """Check the settings and the rights of the role.

    Args:
        session: The facts about a session of the role.
        source: The facts about ``medmitra.cases``, as the role sees it.

    Yields:
        One finding for each check.
    """
    yield _planner(session)
    yield _write_rights(source)
    yield _timeout(session)


def _planner(session: Session) -> Finding:
    is_costly = session.random_page_cost > MAX_RANDOM_PAGE_COST
    return Finding(
        Verdict.ADVICE if is_costly else Verdict.GOOD,
        f"random_page_cost is {session.random_page_cost:g}"
        + (": the planner may sort instead of using the index" if is_costly else ""),
        f"unless the data is on hard disks, run ALTER ROLE {session.role_name} SET random_page_cost = 1.1",
    )


def _write_rights(source: Source) -> Finding:
    return Finding(
        Verdict.ADVICE if source.may_write else Verdict.GOOD,
        f"the role may{'' if source.may_write else ' not'} write to medmitra.cases; the service only reads",
        "let the service log in as the role medmitra_cases, which the owner of medmitra.cases creates with"
        f" {psql('roles.sql')}",
    )


def _timeout(session: Session) -> Finding:
    if session.statement_timeout != "0":
        return Finding(Verdict.GOOD, f"Postgres cancels a query after {session.statement_timeout}", "")
    return Finding(
        Verdict.ADVICE,
        "statement_timeout is 0 (no limit): a query that hangs blocks a thread of the service",
        f"run ALTER ROLE {session.role_name} SET statement_timeout = '5s'",
    )
