"""Reads cases from Postgres: SQL in, rows out."""

import datetime as dt

from psycopg2.extensions import connection as Connection

from medmitra_cases.queries import read_sql

SELECT_CASES = read_sql("select_cases")


# One row of select_cases, its columns in its order; times are UTC without an offset.
CaseRow = tuple[str, str, str, int, str, str | None, str | None, dt.datetime | None, dt.datetime | None]


def fetch_cases(connection: Connection, user_id: str) -> list[CaseRow]:
    """Fetch all cases of one doctor.

    Args:
        connection: An open connection in autocommit mode.
        user_id: The doctor's UUID.

    Returns:
        The cases in insertion order; none for a doctor never heard of.

    Raises:
        psycopg2.Error: The database failed or refused the query.
    """
    with connection.cursor() as cursor:
        cursor.execute(SELECT_CASES, {"user_id": user_id})
        return cursor.fetchall()
