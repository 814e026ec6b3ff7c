"""Makes databases, cases and settings for tests, and the JSON of a case as the contract defines it."""

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

from medmitra_cases.app import create_app, create_database
from medmitra_cases.database import read_sql
from medmitra_cases.settings.settings import Settings

DOCTOR = "b8acad4b-4944-4d66-b405-de70886e7248"
UTC = dt.timezone.utc
KEYS = (
    *("case_id", "user_id", "patient_name", "patient_age", "patient_gender"),
    *("case_summary", "status", "created_at", "updated_at"),
)

# The table as the product's own backend creates it.
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

# The part of a statement that selects the service's sessions in the database of a test.
SESSIONS = "FROM pg_stat_activity WHERE usename = 'medmitra_cases' AND datname = current_database()"

_serial = itertools.count(1)


def execute(connection: Connection, statement: Any, values: Any = None) -> list[tuple[Any, ...]]:
    """Run a statement, and return its rows or an empty list."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def backend_pid(connection: Connection) -> int:
    """Return the pid that the server reports: a pooler may have several servers."""
    ((pid,),) = execute(connection, "SELECT pg_backend_pid()")
    return int(pid)


def settings(database_url: str, **variables: str) -> Settings:
    """Return the settings that these environment variables give."""
    return Settings.from_environ({"DATABASE_URL": database_url, **variables})


@contextmanager
def client_on(database_url: str, **variables: str) -> Iterator[FlaskClient]:
    """Yield a client of the service on that database, with these settings."""
    config = settings(database_url, **variables)
    with closing(create_database(config)) as database:
        yield create_app(config, database=database).test_client()


def case(**values: Any) -> dict[str, Any]:
    """Return the columns of a case of ``DOCTOR``; columns that are not given differ from case to case."""
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
    """Return these columns in the JSON form of the contract."""
    return {key: _json_value(columns[key]) for key in KEYS}


def _json_value(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value


@dataclass(frozen=True)
class Layout:
    """A table layout.

    Attributes:
        relation: The table that tests insert into.
        owner_column: The name of its column with the doctor's id.
        setup_sql: A statement that runs before the files, or an empty string.
        files: The names of the SQL files that an operator runs, in order.
    """

    relation: str
    owner_column: str
    setup_sql: str
    files: tuple[str, ...]

    def create(self, owner: Connection) -> None:
        if self.setup_sql:
            execute(owner, self.setup_sql)
        for name in self.files:
            execute(owner, read_sql(name))


# Two partitions in another server, which for the tests is the same one.
FOREIGN_PARTITIONS = (
    """
    CREATE EXTENSION postgres_fdw;
    DO $$ BEGIN EXECUTE format(
        'CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L)',
        split_part(current_setting('unix_socket_directories'), ',', 1),
        current_setting('port'),
        current_database()
    ); END $$;
    CREATE USER MAPPING FOR PUBLIC SERVER other OPTIONS (user 'postgres', password_required 'false');
    CREATE SCHEMA other;
    CREATE TABLE medmitra.partitioned (LIKE medmitra.cases INCLUDING ALL EXCLUDING INDEXES)
        PARTITION BY HASH (user_id);
"""
    + "".join(
        f"""
    CREATE TABLE other.cases_{number} (
        LIKE medmitra.cases, PRIMARY KEY (user_id, id), UNIQUE (user_id, case_id)
    );
    CREATE FOREIGN TABLE medmitra.cases_{number} PARTITION OF medmitra.partitioned
        FOR VALUES WITH (MODULUS 2, REMAINDER {number})
        SERVER other OPTIONS (schema_name 'other');
    """
        for number in (0, 1)
    )
    + """
    DROP TABLE medmitra.cases;
    ALTER TABLE medmitra.partitioned RENAME TO cases;
    ALTER SEQUENCE medmitra.partitioned_id_seq RENAME TO cases_id_seq;
"""
)

# The service recognizes a table that Citus distributes by its trigger, and sends its statements one by one.
# Here they go to a table of plain Postgres, which must answer them alike.
MARKED_AS_DISTRIBUTED = """
    CREATE FUNCTION medmitra.citus_truncate_trigger() RETURNS trigger
    LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER truncate_trigger AFTER TRUNCATE ON medmitra.cases
    FOR EACH STATEMENT EXECUTE FUNCTION medmitra.citus_truncate_trigger();
    DO $$ BEGIN EXECUTE format(
        'ALTER DATABASE %I SET citus.propagate_set_commands = ''local''', current_database()
    ); END $$;
"""

LAYOUTS = {
    "own_table": Layout("medmitra.cases", "user_id", "", ("schema", "roles")),
    "partitioned": Layout("medmitra.cases", "user_id", "", ("schema", "partitioned", "roles")),
    "existing_table": Layout(
        "public.cases", "doctor_id", PRODUCT_TABLE, ("existing_table", "existing_table_index", "roles")
    ),
    "foreign_partitions": Layout(
        "medmitra.cases", "user_id", read_sql("schema") + FOREIGN_PARTITIONS, ("roles",)
    ),
    "marked_as_distributed": Layout(
        "medmitra.cases", "user_id", read_sql("schema") + MARKED_AS_DISTRIBUTED, ("roles",)
    ),
}

# The layouts of tests that name none.
MAIN_LAYOUTS = ("own_table", "existing_table")


@dataclass(frozen=True)
class CasesDatabase:
    """A database for the service, with the owner's autocommit connection and two connection strings."""

    layout: Layout
    owner: Connection
    owner_dsn: str
    service_dsn: str

    @property
    def sessions(self) -> list[int]:
        """The pids of the service's sessions."""
        return [pid for (pid,) in execute(self.owner, f"SELECT pid {SESSIONS}")]

    def terminate_sessions(self) -> None:
        """End the service's sessions, and wait until they have ended."""
        execute(self.owner, f"SELECT pg_terminate_backend(pid, 5000) {SESSIONS}")

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
        """Insert a case for each of three other doctors; two ids differ from ``DOCTOR`` in the last digit."""
        for user_id in (DOCTOR[:-1] + "7", DOCTOR[:-1] + "9", str(uuid.uuid4())):
            self.add(case(user_id=user_id, patient_name="Somebody Else's Patient"))

    def add_many(self, user_ids: Sequence[str], count: int) -> None:
        """Insert many cases with one statement, shared out evenly among the doctors."""
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
        """Lock the table, so that every query waits until the block or this connection's transaction ends."""
        with closing(psycopg2.connect(self.owner_dsn)) as writer:
            execute(writer, f"LOCK TABLE {self.layout.relation} IN ACCESS EXCLUSIVE MODE")
            yield writer

    @property
    def waiting(self) -> list[int]:
        """Return the pids of the backends whose query waits for a lock."""
        condition = "wait_event_type = 'Lock' AND datname = current_database()"
        return [pid for (pid,) in execute(self.owner, f"SELECT pid FROM pg_stat_activity WHERE {condition}")]


@contextmanager
def without_table(owner_dsn: str) -> Iterator[None]:
    """Rename the table until the block ends, so that every query for cases fails."""
    with closing(psycopg2.connect(owner_dsn)) as owner:
        owner.autocommit = True
        execute(owner, "ALTER TABLE medmitra.cases RENAME TO hidden")
        try:
            yield
        finally:
            execute(owner, "ALTER TABLE medmitra.hidden RENAME TO cases")
