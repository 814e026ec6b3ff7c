"""Finds, reads and runs the files of ``sql/``."""

import shlex
from importlib.resources import files
from pathlib import Path

from psycopg2.extensions import connection as Connection

from medmitra_cases.errors import SqlFileError


def sql_directory() -> Path:
    """Return the path of ``sql/``: inside the installed package, or beside the package in a checkout.

    Returns:
        The directory. If it does not exist, ``read_sql`` raises an error.
    """
    package = Path(str(files("medmitra_cases")))
    installed = package / "sql"
    return installed if installed.is_dir() else package.parent / "sql"


def read_sql(name: str) -> str:
    """Read one file of ``sql/``.

    Args:
        name: The file's name without ``.sql``. The first line of the file repeats it.

    Returns:
        The file's text with its comments, which name the query in the views and logs of Postgres.

    Raises:
        SqlFileError: The file is missing, unreadable, or does not begin with its name.
    """
    path = sql_directory() / f"{name}.sql"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SqlFileError(f"cannot read {path}: {error}") from error
    if not text.startswith(f"-- name: {name}\n"):
        raise SqlFileError(f"{path} does not begin with '-- name: {name}'")
    return text


def execute_file(connection: Connection, name: str) -> None:
    """Run a file of ``sql/``.

    Args:
        connection: A connection whose role has the necessary rights.
        name: The file's name without ``.sql``.

    Raises:
        psycopg2.Error: The database refused.
    """
    with connection.cursor() as cursor:
        cursor.execute(read_sql(name))


def psql(file: str, *, url: str = "$DATABASE_URL") -> str:
    """Return the ``psql`` command that runs a file of ``sql/`` and stops at the first error.

    Args:
        file: The file's name.
        url: A variable of the shell with the address of the database.

    Returns:
        A line for a shell.
    """
    return f'psql "{url}" -v ON_ERROR_STOP=1 -f {shlex.quote(str(sql_directory() / file))}'
