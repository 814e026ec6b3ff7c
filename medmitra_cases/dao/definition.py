"""The definition of ``medmitra.cases``, and whether the versions of its rows can be trusted."""

import logging

from medmitra_cases.dao.statements import SELECT_DEFINITION, BoundQuery
from medmitra_cases.database import Connection
from medmitra_cases.models import Definition

_log = logging.getLogger(__name__)
_logged: set[str] = set()


def definition_of(connection: Connection) -> Definition:
    """Read the definition of ``medmitra.cases``, once for each connection.

    Args:
        connection: An open connection.

    Returns:
        The definition.

    Raises:
        psycopg2.Error: The database failed.
    """
    if connection.definition is None:
        with connection.cursor() as cursor:
            cursor.execute(SELECT_DEFINITION)
            connection.definition = Definition._make(cursor.fetchall()[0])
    return connection.definition


def resolve(connection: Connection, bound: BoundQuery) -> tuple[BoundQuery, str | None]:
    """Decide whether a query reads the versions of the rows.

    Args:
        connection: An open connection.
        bound: The query. If its ``row_versions`` is None, the definition decides.

    Returns:
        The query with the decision, and the hash of the definition; None without versions of the rows.

    Raises:
        psycopg2.Error: The database failed.
    """
    definition = definition_of(connection)  # always before a transaction, which must not begin with it
    if bound.row_versions is None:
        reason = definition.without_row_versions
        if reason is not None and reason not in _logged:
            _logged.add(reason)
            _log.warning("ETags are made from the response body, and each 304 costs a query: %s", reason)
        bound = BoundQuery(bound.query, bound.subject, reason is None)
    return bound, definition.hash if bound.row_versions else None
