"""The Postgres that all servers read: the service's own table, filled with made-up cases."""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases.database.connection import connect
from medmitra_cases.database.sql_files import read_sql
from medmitra_cases.embedded.postgres import embedded_postgres

INSERT_CASES = (Path(__file__).parent / "insert_cases.sql").read_text(encoding="utf-8")

# Who the peers log in as: row level security is not for them, and so costs them nothing.
PEER = "bench_peer"
CREATE_PEER = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{PEER}') THEN
        CREATE ROLE {PEER} LOGIN;
        ALTER ROLE {PEER} SET random_page_cost = 1.1;
    END IF;
END $$;
GRANT USAGE ON SCHEMA medmitra TO {PEER};
GRANT SELECT ON medmitra.cases TO {PEER};
"""


class Group(NamedTuple):
    """Doctors numbered on from ``first``, with the same number of cases each."""

    first: int
    doctors: int
    cases_each: int


def doctor_id(number: int) -> str:
    """Write a doctor's UUID.

    Args:
        number: The doctor's number.

    Returns:
        The UUID as ``insert_cases.sql`` and ``wrk.lua`` write it, too.
    """
    return f"00000000-0000-4000-8000-{number:012x}"


@contextmanager
def postgres() -> Iterator[str]:
    """Run a Postgres with the settings it is shipped with.

    Yields:
        The connection string of its superuser. The server and its data end with the block.

    Raises:
        EmbeddedPostgresError: It does not start.
    """
    with tempfile.TemporaryDirectory(prefix="medmitra-bench-") as folder:
        Path(folder).chmod(0o755)  # for root, Postgres runs as another user who must get through
        with embedded_postgres(Path(folder)) as owner_dsn:
            yield owner_dsn


def create_database(owner_dsn: str, name: str, *groups: Group) -> str:
    """Make a database with the service's table, its role, and cases.

    Args:
        owner_dsn: The superuser's connection string.
        name: The database's name.
        *groups: Whose cases to insert, one group after the other.

    Returns:
        The URL by which the service's role reaches it; psycopg2, asyncpg and pg all take this form. See
        ``url_of_peer``.

    Raises:
        psycopg2.Error: The database refused.
    """
    with closing(connect(owner_dsn)) as connection:
        _execute(connection, f"CREATE DATABASE {name}")
    with closing(connect(make_dsn(owner_dsn, dbname=name))) as connection:
        _execute(connection, read_sql("schema"), read_sql("roles"), CREATE_PEER)
        # Filled without indexes, which is several times as fast; they are as in schema.sql afterwards.
        _execute(
            connection,
            "DROP INDEX medmitra.cases_user_id_id_idx",
            "ALTER TABLE medmitra.cases DROP CONSTRAINT cases_case_id_key",
        )
        for group in groups:
            with connection.cursor() as cursor:
                cursor.execute(INSERT_CASES, {**group._asdict(), "rows": group.doctors * group.cases_each})
        _execute(
            connection,
            "SET maintenance_work_mem = '512MB'",
            "ALTER TABLE medmitra.cases ADD UNIQUE (case_id)",
            read_sql("schema"),
            "VACUUM ANALYZE medmitra.cases",
            "CHECKPOINT",  # or what was just written would be flushed while something is measured
        )
    server = parse_dsn(owner_dsn)
    return (
        f"postgresql://medmitra_cases@/{name}?{urlencode({'host': server['host'], 'port': server['port']})}"
    )


def url_of_peer(database_url: str) -> str:
    """Write the URL by which a peer reaches a database.

    Args:
        database_url: The one by which the service does.

    Returns:
        The same for the role ``PEER``.
    """
    return database_url.replace("//medmitra_cases@", f"//{PEER}@")


def drop_database(owner_dsn: str, name: str) -> None:
    """Drop a database and end whatever is connected to it.

    Args:
        owner_dsn: The superuser's connection string.
        name: The database's name.

    Raises:
        psycopg2.Error: The database refused.
    """
    with closing(connect(owner_dsn)) as connection:
        _execute(connection, f"DROP DATABASE {name} WITH (FORCE)")


def postgres_version(owner_dsn: str) -> str:
    """Ask the server for its version.

    Args:
        owner_dsn: The superuser's connection string.

    Returns:
        For example ``18.6``.

    Raises:
        psycopg2.Error: The database failed.
    """
    with closing(connect(owner_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        (version,) = cursor.fetchall()[0]
    return str(version).split()[0]


def _execute(connection: Connection, *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
