"""Sends the statements of a transaction to Postgres, or to Citus."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from psycopg2.extensions import cursor as Cursor

from medmitra_cases.dao.definition import definition_of
from medmitra_cases.database import Connection


@contextmanager
def transaction(
    connection: Connection, statements: Iterable[str], parameters: dict[str, Any]
) -> Iterator[Cursor]:
    """Run a transaction.

    Args:
        connection: An open connection in autocommit mode.
        statements: The statements. At most the last one returns rows.
        parameters: The values of their parameters.

    Yields:
        A cursor with the result of the last statement.

    Raises:
        psycopg2.Error: The database failed or refused a statement.
    """
    with connection.cursor() as cursor:
        if not definition_of(connection).is_distributed:
            send(connection, cursor, statements, parameters)
            yield cursor
            return
        connection.autocommit = False
        try:
            send(connection, cursor, statements, parameters)
            yield cursor
        finally:
            connection.end_transaction()


def send(
    connection: Connection, cursor: Cursor, statements: Iterable[str], parameters: dict[str, Any]
) -> None:
    """Execute statements in one string, which needs one round trip; for a distributed table, one by one.

    Citus sends the whole string of a SET LOCAL to the shards, and a shard refuses the query in it.

    Args:
        connection: An open connection; for a distributed table, not in autocommit mode.
        cursor: A cursor of the connection.
        statements: The statements.
        parameters: The values of their parameters.

    Raises:
        psycopg2.Error: The database failed or refused a statement.
    """
    if definition_of(connection).is_distributed:
        for statement in statements:
            cursor.execute(statement, parameters)
    else:
        cursor.execute(";\n".join(statements), parameters)
