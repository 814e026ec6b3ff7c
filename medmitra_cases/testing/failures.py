"""Failures that a test asks for: a database that is down, and slow responses."""

from collections.abc import Callable, Iterable
from contextlib import closing
from threading import Event
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import parse_dsn

from medmitra_cases.contract import PATH
from medmitra_cases.database import connect, read_sql
from medmitra_cases.telemetry import call_blocking
from medmitra_cases.testing.case_editor import CommandRefused

# Seconds. A stream waits with an open transaction, which Postgres ends after 60 s.
MAX_SLOW_SECONDS = 30

WsgiApp = Callable[..., Iterable[bytes]]


class DatabaseSwitch:
    """Takes one database of a server down, and up again. Other databases of the server stay up."""

    def __init__(self, server_dsn: str, owner_dsn: str) -> None:
        """Leave the database as it is.

        Args:
            server_dsn: A superuser's connection string to another database of the server.
            owner_dsn: The connection string of the database.
        """
        self._server_dsn = server_dsn
        self._name = parse_dsn(owner_dsn)["dbname"]

    def down(self) -> None:
        """Refuse new connections, and end those of the service; psycopg2.Error if the server is down."""
        self._allow_connections(allowed=False)

    def up(self) -> None:
        """Accept connections again; psycopg2.Error if the server is down."""
        self._allow_connections(allowed=True)

    def _allow_connections(self, *, allowed: bool) -> None:
        with closing(connect(self._server_dsn)) as server, server.cursor() as cursor:
            cursor.execute(
                sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(
                    sql.Identifier(self._name), sql.Literal(allowed)
                )
            )
            if not allowed:
                cursor.execute(read_sql("end_sessions"), {"database": self._name})


class SlowResponses:
    """Keeps the responses of the endpoint back for some time."""

    def __init__(self) -> None:
        """Keep none back."""
        self._delay = (0.0, Event())  # in seconds; the event ends it early

    def slow(self, /, seconds: Any) -> None:
        """Set the time, 0 to 30 s, and send the responses that wait; CommandRefused if it is another."""
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 <= seconds <= MAX_SLOW_SECONDS:
            raise CommandRefused(f"seconds must be a number from 0 to {MAX_SLOW_SECONDS}")
        _, is_over = self._delay
        is_over.set()
        self._delay = (seconds, Event())

    def wrap(self, app: WsgiApp) -> WsgiApp:
        """Return the application with slow responses, except to preflights and for other paths."""

        def respond(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            response = app(environ, start_response)
            seconds, is_over = self._delay
            if seconds and environ["PATH_INFO"] == PATH and environ["REQUEST_METHOD"] != "OPTIONS":
                call_blocking(is_over.wait, seconds)
            return response

        return respond
