"""A Postgres server for tests, with temporary databases."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

from marshmallow import ValidationError
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases.database import connect, execute_file, read_sql
from medmitra_cases.embedded import embedded_postgres
from medmitra_cases.errors import SettingsError
from medmitra_cases.settings import must_be_database_url
from medmitra_cases.testing.start import TEST_DATABASE_URL


@contextmanager
def postgres_server() -> Iterator[str]:
    """Use the server of ``MEDMITRA_TEST_DATABASE_URL``, or run an embedded one until the block ends.

    Yields:
        A superuser's connection string.

    Raises:
        SettingsError: The variable is not a connection string of a superuser.
        EmbeddedPostgresError: The embedded server does not start.
        psycopg2.Error: The connection to the given server failed.
    """
    given_dsn = os.environ.get(TEST_DATABASE_URL)
    if given_dsn:
        _check_superuser(given_dsn)
        yield given_dsn
        return
    with open_folder() as folder, embedded_postgres(folder, durable=False) as dsn:
        yield dsn


def _check_superuser(dsn: str) -> None:
    try:
        must_be_database_url(dsn)
    except ValidationError as error:
        raise SettingsError(f"{TEST_DATABASE_URL} {error.messages[0]}") from None
    with closing(connect(dsn)) as server, server.cursor() as cursor:
        cursor.execute(read_sql("select_is_superuser"))
        if cursor.fetchone() != (True,):
            # Only a superuser can drop the database while the service is connected to it.
            raise SettingsError(f"{TEST_DATABASE_URL} must name a superuser")


@contextmanager
def open_folder() -> Iterator[Path]:
    """Create a temporary folder that an embedded Postgres can enter, which runs as another user for root.

    Yields:
        The folder.
    """
    with tempfile.TemporaryDirectory(prefix="medmitra-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@contextmanager
def new_database(server_dsn: str, *, options: str = "TEMPLATE template0 ENCODING 'UTF8'") -> Iterator[str]:
    """Create a database, and drop it when the block ends.

    Args:
        server_dsn: A superuser's connection string.
        options: Options of ``CREATE DATABASE``, in SQL.

    Yields:
        The owner's connection string. The database has a unique name that begins with ``medmitra_test_``.

    Raises:
        psycopg2.Error: The server refused.
    """
    name = f"medmitra_test_{secrets.token_hex(4)}"
    identifier = sql.Identifier(name)
    with closing(connect(server_dsn)) as server, server.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE DATABASE {} {}").format(identifier, sql.SQL(options)))
        try:
            yield make_dsn(server_dsn, dbname=name)
        finally:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def make_roles(server_dsn: str, owner: Connection, owner_dsn: str) -> str:
    """Run ``roles.sql``, and give the service's role the password of the database's owner.

    Args:
        server_dsn: A superuser's connection string. All databases of a server share the role, so an advisory
            lock in this database serializes the callers.
        owner: An autocommit connection to the database, which has ``medmitra.cases``.
        owner_dsn: The connection string of ``owner``.

    Returns:
        The service's connection string, with the password of ``owner`` if there is one.

    Raises:
        psycopg2.Error: The server refused.
    """
    password = owner.info.password
    with closing(connect(server_dsn)) as server, server.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended('medmitra roles.sql', 0))")
        execute_file(owner, "roles")
        if password:
            cursor.execute("ALTER ROLE medmitra_cases PASSWORD %s", [password])
    login = {"user": "medmitra_cases", **({"password": password} if password else {})}
    return make_dsn(owner_dsn, **login)


def as_uri(connection: Connection) -> str:
    """Return the URI of a connection, for drivers of other languages.

    Args:
        connection: An open connection.

    Returns:
        ``postgresql://USER:PASSWORD@/DATABASE?host=…&port=…``. The host is a parameter because it may be the
        folder of a socket. The TLS parameters are those of the connection string.
    """
    info = connection.info
    login = quote(info.user, safe="")
    if info.password:
        login += f":{quote(info.password, safe='')}"
    parameters = {"host": info.host, "port": str(info.port)}
    parameters |= {name: value for name, value in parse_dsn(connection.dsn).items() if name.startswith("ssl")}
    return f"postgresql://{login}@/{quote(info.dbname, safe='')}?{urlencode(parameters, quote_via=quote)}"
