"""The command ``harness``: the service on an empty database, and cases as a test wants them."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from threading import Thread

import click
from psycopg2.extensions import connection as Connection

from medmitra_cases.auth import mint_token
from medmitra_cases.cli.help import Command
from medmitra_cases.cli.options import listen_option
from medmitra_cases.database import connect, execute_file
from medmitra_cases.schemas import UUID_RULE, canonical_uuid
from medmitra_cases.server import exit_on_signals, serve
from medmitra_cases.settings import Settings
from medmitra_cases.testing.case_editor import CaseEditor, Refused
from medmitra_cases.testing.json_lines import run_commands, say
from medmitra_cases.testing.postgres import as_uri, make_roles, new_database, postgres_server

# Settings that are other than the service's own unless they are set.
DEFAULTS = {
    "MEDMITRA_ADMIN_LISTEN": "off",  # several may run at once
    "MEDMITRA_DRAIN_SECONDS": "1",  # a test that is over waits for no answer
}


@click.command(
    cls=Command,
    examples="""
    medmitra-cases harness
    {"url":"http://127.0.0.1:41234","database_url":"..."}
    {"add_case": {"user_id": "b8acad4b-...", "patient_name": "Ada"}}
    {"result":{"case_id":"0ab51d7c-...","user_id":"b8acad4b-...", ...}}

    {"update_case": {"case_id": "0ab51d7c-...", "status": "completed"}}
    {"clear": {}}
    {"token": {"user_id": "..."}}     # needs MEDMITRA_JWT_SECRET
    {"flush_log": {}}                 # what it logged is on stderr then
    """,
    variables=[
        (
            "MEDMITRA_TEST_DATABASE_URL",
            "The server to make a database on, as a superuser. Without, it is a Postgres of its own, which"
            " takes the extra: pip install 'medmitra-cases[testing]'.",
        ),
        *((f"{name}  [default: {value}]", "As for serve.") for name, value in DEFAULTS.items()),
        ("MEDMITRA_...", "All other settings of serve, but MEDMITRA_LISTEN."),
    ],
    statuses=[
        ("0", "ended by the end of its stdin, or by SIGTERM, SIGHUP or Ctrl-C"),
        ("1", "an error, told in one line on stderr"),
        ("2", "wrong usage, told likewise"),
    ],
)
@listen_option("Listen here, not on a free port.", default="127.0.0.1:0")
def harness(listen: str) -> None:
    """Serve tests in any language, from an empty database.

    Prints one line of JSON once it answers, and ends when its stdin closes. A line of JSON on stdin asks for
    something, and is answered with a line: {"result": ...}, which is the case, null or the token, or
    {"error": "..."}. An "id" beside what is asked for comes back with the answer.
    """
    environ = {**DEFAULTS, **{name: value for name, value in os.environ.items() if value}}
    environ["MEDMITRA_LISTEN"] = listen
    # Mistakes show before Postgres starts.
    Settings.from_environ({**environ, "DATABASE_URL": "dbname=postgres"})
    exit_on_signals()
    with _empty_database() as (owner_dsn, owner_uri, service_dsn):
        settings = Settings.from_environ({**environ, "DATABASE_URL": service_dsn})
        with (
            closing(CaseEditor(partial(_connect_as, owner_dsn))) as editor,
            suppress(SystemExit),  # clients that were cut off do not count: their test is over
        ):
            serve(settings, partial(_begin, owner_uri, _commands(editor, settings)))


@contextmanager
def _empty_database() -> Iterator[tuple[str, str, str]]:
    """Have one; the owner's connection string, the same as a URI, and the service's."""
    with postgres_server() as server_dsn, new_database(server_dsn) as owner_dsn:
        with closing(connect(owner_dsn)) as owner:
            execute_file(owner, "schema")
            service_dsn = make_roles(server_dsn, owner, owner_dsn)
            owner_uri = as_uri(owner)
        connect(service_dsn).close()  # better now than in the first test
        yield owner_dsn, owner_uri, service_dsn


def _connect_as(owner_dsn: str) -> Connection:
    owner = connect(owner_dsn)
    with owner.cursor() as cursor:
        cursor.execute("SET timezone = 'UTC'")  # of times without an offset
        cursor.execute(
            "SET lock_timeout = '2s'"
        )  # for whoever waits for a transaction that a test left behind
    return owner


def _commands(editor: CaseEditor, settings: Settings) -> Mapping[str, Callable[..., object]]:
    return {
        "add_case": editor.add_case,
        "update_case": editor.update_case,
        "clear": editor.clear,
        "flush_log": _flush_log,
        "token": partial(_token, settings),
    }


def _token(settings: Settings, /, user_id: str, minutes: int = 60) -> str:
    if not (isinstance(user_id, str) and canonical_uuid(user_id)):
        raise Refused(f"user_id {UUID_RULE}")
    if not isinstance(minutes, int):
        raise Refused("minutes must be an integer")
    return mint_token(settings, user_id, minutes=minutes)


def _flush_log() -> None:
    for logger in (logging.getLogger(), logging.getLogger("medmitra_cases.audit")):
        for handler in logger.handlers:
            handler.flush()


def _begin(database_url: str, commands: Mapping[str, Callable[..., object]], urls: Sequence[str]) -> None:
    say({"url": urls[0], "database_url": database_url})
    # A daemon: where a signal ends the process, it still waits for a line.
    Thread(target=run_commands, args=(commands,), daemon=True).start()
