"""The database that all servers read: the service's own table, filled with made-up cases."""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases.database import connect, read_sql
from medmitra_cases.embedded import embedded_postgres

INSERT_CASES = (Path(__file__).parent / "insert_cases.sql").read_text(encoding="utf-8")

SERVICE_ROLE = "medmitra_cases"
# The role of the peers. It sees the cases of all doctors, so row level security costs the peers nothing.
PEER_ROLE = "bench_peer"
CREATE_PEER_ROLE = f"CREATE ROLE {PEER_ROLE} LOGIN; ALTER ROLE {PEER_ROLE} SET random_page_cost = 1.1"


class Group(NamedTuple):
    """Doctors with consecutive numbers and the same number of cases each."""

    first: int
    doctors: int
    cases_each: int


class Database(NamedTuple):
    """A database with the service's table, and the superuser's connection string for its server."""

    owner_dsn: str
    name: str

    def url(self, role: str) -> str:
        """Return the URL for a role, in a form that psycopg2, asyncpg and pg all accept."""
        server = parse_dsn(self.owner_dsn)
        address = urlencode({"host": server["host"], "port": server["port"]})
        return f"postgresql://{role}@/{self.name}?{address}"

    def postgres_version(self) -> str:
        """Return the version of the server, such as ``18.6``."""
        with closing(connect(self.owner_dsn)) as connection:
            return str(connection.get_parameter_status("server_version")).split()[0]


def doctor_id(number: int) -> str:
    """Return the UUID of doctor number N, as ``insert_cases.sql`` and ``wrk.lua`` write it, too."""
    return f"00000000-0000-4000-8000-{number:012x}"


@contextmanager
def postgres() -> Iterator[str]:
    """Run a Postgres with its default settings during the block; yield its superuser's connection string."""
    with tempfile.TemporaryDirectory(prefix="medmitra-bench-") as folder:
        Path(folder).chmod(0o755)  # as root, Postgres runs as another user, who needs access
        with embedded_postgres(Path(folder)) as owner_dsn:
            _execute(owner_dsn, CREATE_PEER_ROLE)
            yield owner_dsn


@contextmanager
def filled_database(owner_dsn: str, name: str, *groups: Group) -> Iterator[Database]:
    """Create a database with the service's table and the cases of some groups; drop it after the block."""
    _execute(owner_dsn, f"CREATE DATABASE {name}")
    try:
        dsn = make_dsn(owner_dsn, dbname=name)
        _execute(
            dsn,
            read_sql("schema"),
            read_sql("roles"),
            f"GRANT USAGE ON SCHEMA medmitra TO {PEER_ROLE}",
            f"GRANT SELECT ON medmitra.cases TO {PEER_ROLE}",
            # Inserting without indexes is several times as fast. schema.sql creates them again below.
            "DROP INDEX medmitra.cases_user_id_id_idx",
            "ALTER TABLE medmitra.cases DROP CONSTRAINT cases_case_id_key",
        )
        for group in groups:
            rows = group.doctors * group.cases_each
            _execute(dsn, INSERT_CASES, values={**group._asdict(), "rows": rows})
        _execute(
            dsn,
            "SET maintenance_work_mem = '512MB'",
            "ALTER TABLE medmitra.cases ADD UNIQUE (case_id)",
            read_sql("schema"),
            "VACUUM ANALYZE medmitra.cases",
            "CHECKPOINT",  # otherwise Postgres writes the new rows to disk while something is measured
        )
        yield Database(owner_dsn, name)
    finally:
        _execute(owner_dsn, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(dsn: str, *statements: str, values: dict[str, int] | None = None) -> None:
    with closing(connect(dsn)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement, values)
