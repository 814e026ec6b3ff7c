"""Looks at the role that the service logs in as."""

from collections.abc import Iterator

from psycopg2.extensions import connection as Connection

from medmitra_cases.checks.catalogue import Session, Source
from medmitra_cases.checks.finding import Finding, Verdict
from medmitra_cases.checks.plan import filters_by_doctor
from medmitra_cases.database import psql, sql_directory

# Above, the planner tends to gather a doctor's rows out of order and sort them.
MAX_RANDOM_PAGE_COST = 2.0


def check_row_filter(connection: Connection) -> Finding:
    """Look whether the database itself keeps one doctor's cases apart from another's.

    Args:
        connection: A connection as the service would make it, which may read ``medmitra.cases``.

    Returns:
        What was found.

    Raises:
        psycopg2.Error: The database failed.
    """
    one = filters_by_doctor(connection)
    return Finding(
        Verdict.GOOD if one else Verdict.ADVICE,
        f"the role sees {'the cases of one doctor at a time' if one else 'the cases of all doctors at once'}",
        f"let the service log in as the role medmitra_cases: {psql('roles.sql')}; a view needs the condition"
        f" that {sql_directory() / 'existing_table.sql'} has",
    )


def check_role(session: Session, source: Source) -> Iterator[Finding]:
    """Look at the settings and the rights of the role.

    Args:
        session: A session of the role.
        source: What of ``medmitra.cases`` matters, as the role sees it.

    Yields:
        What was found.
    """
    yield _planner(session)
    yield _no_more_rights(source)
    yield _timeout(session)


def _planner(session: Session) -> Finding:
    is_costly = session.random_page_cost > MAX_RANDOM_PAGE_COST
    return Finding(
        Verdict.ADVICE if is_costly else Verdict.GOOD,
        f"random_page_cost is {session.random_page_cost:g}"
        + is_costly * ": the planner may sort, not use the index",
        f"ALTER ROLE {session.role_name} SET random_page_cost = 1.1, unless the data is on spinning disks",
    )


def _no_more_rights(source: Source) -> Finding:
    return Finding(
        Verdict.ADVICE if source.may_write else Verdict.GOOD,
        f"the role may {'also' if source.may_write else 'not'} write medmitra.cases",
        f"let the service log in as the role medmitra_cases: {psql('roles.sql')}",
    )


def _timeout(session: Session) -> Finding:
    if session.statement_timeout != "0":
        return Finding(Verdict.GOOD, f"queries are cancelled after {session.statement_timeout}", "")
    return Finding(
        Verdict.ADVICE,
        "no statement_timeout: a query that hangs holds its thread for ever",
        f"ALTER ROLE {session.role_name} SET statement_timeout = '5s'",
    )
