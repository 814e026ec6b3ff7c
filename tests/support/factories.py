"""Makes databases, cases and settings for the tests, and says what the contract makes of a case."""

import datetime as dt
import itertools
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from flask.testing import FlaskClient
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from medmitra_cases import create_app
from medmitra_cases.database import Database, read_sql
from medmitra_cases.settings.settings import Settings

DOCTOR = "b8acad4b-4944-4d66-b405-de70886e7248"
UTC = dt.timezone.utc
KEYS = (
    *("case_id", "user_id", "patient_name", "patient_age", "patient_gender"),
    *("case_summary", "status", "created_at", "updated_at"),
)

# The table as the product's own backend makes it, with what such a backend's database also holds.
PRODUCT_TABLE = """
    CREATE TABLE public.cases (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        case_id text UNIQUE NOT NULL,
        doctor_id uuid NOT NULL,
        patient_name text NOT NULL,
        patient_age int NOT NULL,
        patient_gender text NOT NULL,
        case_summary text,
        status text,
        created_at timestamptz,
        updated_at timestamptz
    )
"""

_serial = itertools.count(1)


def execute(connection: Connection, statement: Any, values: Any = None) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows, if it has any."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def settings(database_url: str, **variables: str) -> Settings:
    """Settings as an environment would give them."""
    return Settings.from_environ({"DATABASE_URL": database_url, **variables})


@contextmanager
def client_on(database_url: str, **variables: str) -> Iterator[FlaskClient]:
    """A client of the service on that database, with these settings."""
    chosen = settings(database_url, **variables)
    with closing(Database(chosen.database_url, wait_seconds=chosen.database_wait_seconds)) as database:
        yield create_app(chosen, database=database).test_client()


def case(**values: Any) -> dict[str, Any]:
    """The columns of one case of ``DOCTOR``, unlike any other's unless values are given."""
    serial = next(_serial)
    moment = dt.datetime(2026, 1, 1, tzinfo=UTC) + dt.timedelta(minutes=serial)
    return {
        "case_id": str(uuid.uuid4()),
        "user_id": DOCTOR,
        "patient_name": f"Patient {serial}",
        "patient_age": serial % 100,
        "patient_gender": "female",
        "case_summary": f"Summary {serial}",
        "status": "pending",
        "created_at": moment,
        "updated_at": moment + dt.timedelta(seconds=1),
        **values,
    }


def in_json(columns: dict[str, Any]) -> dict[str, Any]:
    """The case that the contract makes of these columns."""
    return {key: _in_json(columns[key]) for key in KEYS}


def _in_json(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value


@dataclass(frozen=True)
class Layout:
    """A way to keep cases: the relation that writers fill, its owner column, the files that serve it."""

    relation: str
    owner_column: str
    before: str
    files: tuple[str, ...]

    def create(self, owner: Connection) -> None:
        if self.before:
            execute(owner, self.before)
        for name in self.files:
            execute(owner, read_sql(name))


LAYOUTS = {
    "own_table": Layout("medmitra.cases", "user_id", "", ("schema", "roles")),
    "existing_table": Layout(
        "public.cases", "doctor_id", PRODUCT_TABLE, ("existing_table", "existing_table_index", "roles")
    ),
}


@dataclass(frozen=True)
class CasesDatabase:
    """A database that the service can serve, and its owner's autocommit connection to fill it."""

    layout: Layout
    owner: Connection
    owner_dsn: str
    service_dsn: str

    def clear(self) -> None:
        execute(self.owner, f"TRUNCATE {self.layout.relation}")

    def add(self, *cases: dict[str, Any]) -> None:
        """Insert cases, in this order."""
        for columns in cases:
            names = [self.layout.owner_column if name == "user_id" else name for name in columns]
            statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.SQL(self.layout.relation),
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.SQL(", ").join([sql.Placeholder()] * len(names)),
            )
            execute(self.owner, statement, list(columns.values()))

    def add_decoys(self) -> None:
        """Insert a case of each of a few other doctors, ids next to ``DOCTOR``'s among them."""
        for other in (DOCTOR[:-1] + "7", DOCTOR[:-1] + "9", str(uuid.uuid4())):
            self.add(case(user_id=other, patient_name="Somebody Else's Patient"))

    def add_many(self, user_ids: Sequence[str], count: int) -> None:
        """Insert many cases fast, the doctors taking turns."""
        execute(
            self.owner,
            f"""
            INSERT INTO {self.layout.relation}
                (case_id, {self.layout.owner_column}, patient_name, patient_age, patient_gender, case_summary)
            SELECT gen_random_uuid(), (%s::uuid[])[1 + n %% %s], 'Patient ' || n, n %% 100, 'male',
                repeat('words ', 30)
            FROM generate_series(1, %s) AS n
            """,
            (list(user_ids), len(user_ids), count),
        )
        execute(self.owner, f"VACUUM ANALYZE {self.layout.relation}")

    @contextmanager
    def locked(self) -> Iterator[Connection]:
        """Let every query for cases wait until the block, or the transaction of this connection, ends."""
        with closing(psycopg2.connect(self.owner_dsn)) as writer:
            execute(writer, f"LOCK TABLE {self.layout.relation} IN ACCESS EXCLUSIVE MODE")
            yield writer

    @property
    def waiting(self) -> list[int]:
        """The backends whose query waits for a lock."""
        waiting = "wait_event_type = 'Lock' AND datname = current_database()"
        return [pid for (pid,) in execute(self.owner, f"SELECT pid FROM pg_stat_activity WHERE {waiting}")]


@contextmanager
def without_table(owner_dsn: str) -> Iterator[None]:
    """Let every query for cases fail until the block ends."""
    with closing(psycopg2.connect(owner_dsn)) as owner:
        owner.autocommit = True
        execute(owner, "ALTER TABLE medmitra.cases RENAME TO hidden")
        try:
            yield
        finally:
            execute(owner, "ALTER TABLE medmitra.hidden RENAME TO cases")
