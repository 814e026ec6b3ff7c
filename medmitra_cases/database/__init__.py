"""Connections to Postgres, retries, timeouts, and the files of ``sql/``."""

from medmitra_cases.database.connection import Connection, connect
from medmitra_cases.database.database import Database
from medmitra_cases.database.parameters import refuse_read_write
from medmitra_cases.database.sql_files import execute_file, psql, read_sql, sql_directory
from medmitra_cases.database.translate import translated
from medmitra_cases.database.watchdog import MAX_STATEMENT_SECONDS

__all__ = [
    "MAX_STATEMENT_SECONDS",
    "Connection",
    "Database",
    "connect",
    "execute_file",
    "psql",
    "read_sql",
    "refuse_read_write",
    "sql_directory",
    "translated",
]
