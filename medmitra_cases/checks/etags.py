"""Checks what the entity tags are made of."""

from medmitra_cases.checks.finding import Finding, Verdict, psql_as_owner
from medmitra_cases.checks.plan import has_row_versions
from medmitra_cases.dao import definition_of
from medmitra_cases.database import Connection


def check_row_versions(connection: Connection, *, required: bool) -> Finding:
    """Check whether entity tags can be made of row versions.

    Args:
        connection: A connection with the role of the service, which may read ``medmitra.cases``.
        required: Whether the service makes them of row versions even if these do not cover each change.

    Returns:
        The finding.

    Raises:
        psycopg2.Error: The database failed.
    """
    if required and not has_row_versions(connection):
        return Finding(
            Verdict.MISSING,
            "the role cannot read the row versions (xmin) from which ETags are made",
            f"{_REPAIR}; or set MEDMITRA_ETAG_SOURCE=body if there is no xmin",
        )
    reason = definition_of(connection).without_row_versions
    if reason is None:
        return Finding(Verdict.GOOD, "ETags are made from row versions (xmin)", "")
    if required:
        return Finding(
            Verdict.ADVICE,
            f"ETags are made from row versions (xmin), which may miss changes: {reason}",
            "set MEDMITRA_ETAG_SOURCE=auto; clients may otherwise get a 304 for a list that has changed",
        )
    return Finding(
        Verdict.ADVICE,
        f"ETags are made from the response body, so each 304 costs a query: {reason}",
        f"if the table has versions of its rows, {_REPAIR}; MEDMITRA_ETAG_SOURCE=body hides this advice",
    )


_REPAIR = (
    f"for a view, first run {psql_as_owner('existing_table.sql')};"
    f" for tables and views, run {psql_as_owner('roles.sql')}"
)
