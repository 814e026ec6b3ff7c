"""A Postgres server for tests, and databases on it that come and go."""

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

from medmitra_cases.database import connect, execute_file
from medmitra_cases.embedded import embedded_postgres
from medmitra_cases.errors import SettingsError
from medmitra_cases.settings import must_be_database_url
from medmitra_cases.testing.start import TEST_DATABASE_URL


@contextmanager
def postgres_server() -> Iterator[str]:
    """Have a server that is ours to fill: the one that is named, or an embedded one that ends with the block.

    Yields:
        A superuser's connection string.

    Raises:
        SettingsError: One is named by something else.
        EmbeddedPostgresError: None is named, and the embedded one does not start.
        psycopg2.Error: The one that is named cannot be reached.
    """
    named = os.environ.get(TEST_DATABASE_URL)
    if named:
        _must_be_superusers(named)
        yield named
        return
    with open_folder() as folder, embedded_postgres(folder, durable=False) as dsn:
        yield dsn


def _must_be_superusers(dsn: str) -> None:
    try:
        must_be_database_url(dsn)
    except ValidationError as error:
        raise SettingsError(f"{TEST_DATABASE_URL} {error.messages[0]}") from None
    with closing(connect(dsn)) as server, server.cursor() as cursor:
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if cursor.fetchone() != (True,):
            # Others may do all of it, but for dropping the database while a session of the service lasts.
            raise SettingsError(f"{TEST_DATABASE_URL} must name a superuser")


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a temporary folder for an embedded Postgres, which for root runs as a user who must get through.

    Yields:
        The folder.
    """
    with tempfile.TemporaryDirectory(prefix="medmitra-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@contextmanager
def new_database(server_dsn: str, *, options: str = "TEMPLATE template0 ENCODING 'UTF8'") -> Iterator[str]:
    """Make a database for as long as the block lasts.

    Args:
        server_dsn: A superuser's connection string.
        options: What ``CREATE DATABASE`` is to be told, in SQL.

    Yields:
        The connection string of its owner. Its name begins with ``medmitra_test_`` and is no other's.

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
    """Run ``roles.sql``, and let the service's role log in where the database's owner does.

    Args:
        server_dsn: A superuser's connection string. The role is the whole server's: who names the same
            database here takes turns.
        owner: An autocommit connection to the database, which has ``medmitra.cases``.
        owner_dsn: What that was made of.

    Returns:
        The connection string of the service. Where the owner has a password, the role now has the same.

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
    """Write where a connection leads as drivers in other languages read it, too.

    Args:
        connection: The connection.

    Returns:
        ``postgresql://USER:PASSWORD@/DATABASE?host=…&port=…``: a host may be a folder, so it is not where
        hosts are as a rule. What it says of TLS is what the connection was told.
    """
    info = connection.info
    login = quote(info.user, safe="")
    if info.password:
        login += f":{quote(info.password, safe='')}"
    parameters = {"host": info.host, "port": str(info.port)}
    parameters |= {name: value for name, value in parse_dsn(connection.dsn).items() if name.startswith("ssl")}
    return f"postgresql://{login}@/{quote(info.dbname, safe='')}?{urlencode(parameters, quote_via=quote)}"
