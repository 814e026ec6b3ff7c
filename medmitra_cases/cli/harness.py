"""The command ``harness``: the service on an empty database, controlled by JSON lines on stdin."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from threading import Thread

import click
from psycopg2.extensions import connection as Connection

from medmitra_cases.auth import mint_token
from medmitra_cases.cli.help import DEFAULT_STATUSES, Command
from medmitra_cases.cli.options import ListenAddress
from medmitra_cases.database import connect, execute_file
from medmitra_cases.errors import SettingsError
from medmitra_cases.schemas import UUID_RULE, canonical_uuid
from medmitra_cases.server import serve
from medmitra_cases.settings import Settings, unknown_variables
from medmitra_cases.telemetry import exit_on_signals
from medmitra_cases.testing.case_editor import CaseEditor, CommandRefused
from medmitra_cases.testing.failures import DatabaseSwitch, SlowResponses
from medmitra_cases.testing.json_lines import run_commands, write_json_line
from medmitra_cases.testing.postgres import as_uri, make_roles, new_database, postgres_server

# Defaults that differ from those of serve.
DEFAULTS = {
    "MEDMITRA_ADMIN_LISTEN": "off",  # several harnesses may run at the same time
    "MEDMITRA_DRAIN_SECONDS": "1",  # no test waits for a response any more
}


@click.command(
    cls=Command,
    examples="""
    medmitra-cases harness
    {"url":"http://127.0.0.1:41234","database_url":"..."}
    {"add_case": {"user_id": "b8acad4b-...", "patient_name": "Ada"}}
    {"result":{"case_id":"0ab51d7c-...","user_id":"b8acad4b-...", ...}}

    {"add_cases": {"count": 10000, "user_id": "b8acad4b-..."}}
    {"update_case": {"case_id": "0ab51d7c-...", "status": "completed"}}
    {"clear": {}}
    {"database_down": {}}             # until {"database_up": {}}
    {"slow": {"seconds": 2}}          # until {"slow": {"seconds": 0}}
    {"token": {"user_id": "..."}}     # needs MEDMITRA_JWT_SECRET
    {"flush_log": {}}                 # writes the log so far to stderr
    """,
    variables=[
        (
            "MEDMITRA_TEST_DATABASE_URL",
            "Connection string of a superuser. The harness creates its database there. If not set, it"
            " starts an embedded Postgres, which needs: pip install 'medmitra-cases[testing]'.",
        ),
        *(
            (f"{name}  [default: {value}]", "See medmitra-cases serve --help.")
            for name, value in DEFAULTS.items()
        ),
        ("MEDMITRA_...", "All other settings of serve, except MEDMITRA_LISTEN."),
    ],
    statuses=[
        ("0", "stdin was closed, or SIGTERM, SIGHUP or Ctrl-C was received"),
        *DEFAULT_STATUSES[1:],
    ],
)
@click.option(
    "--listen",
    type=ListenAddress(),
    default="127.0.0.1:0",
    help="Address to listen on, instead of a free port of 127.0.0.1.",
)
def harness(listen: str) -> None:
    """Run the service on an empty database, for tests.

    Tests in any language can start it. It prints one line of JSON when the service accepts requests, and
    ends when its stdin is closed. Each line of JSON on stdin is a command. Its result is one line on stdout:
    {"result": ...} with the case, the cases, the token or null, or {"error": "..."}. If the command has an
    "id", its result has the same "id".
    """
    # A test that sets a misspelt variable would test something else than it says.
    unknown = unknown_variables(os.environ)
    if unknown:
        raise SettingsError("; ".join(unknown))
    overrides = {name: os.environ.get(name) or default for name, default in DEFAULTS.items()}
    overrides["MEDMITRA_LISTEN"] = listen
    # Report wrong settings before Postgres starts.
    Settings.from_environ(os.environ, {**overrides, "DATABASE_URL": "dbname=postgres"})
    exit_on_signals()
    slow_responses = SlowResponses()
    with _empty_database() as (switch, owner_dsn, owner_uri, service_dsn):
        settings = Settings.from_environ(os.environ, {**overrides, "DATABASE_URL": service_dsn})
        with (
            closing(CaseEditor(partial(_connect_owner, owner_dsn))) as editor,
            suppress(SystemExit),  # status 1 reports requests that were cut off; the tests are over
        ):
            commands = {
                **_commands(editor, settings),
                "database_down": switch.down,
                "database_up": switch.up,
                "slow": slow_responses.slow,
            }
            serve(settings, partial(_start_commands, owner_uri, commands), slow_responses.wrap)


@contextmanager
def _empty_database() -> Iterator[tuple[DatabaseSwitch, str, str, str]]:
    """Create one. Yield its switch, the owner's connection string, that as a URI, the service's string."""
    with postgres_server() as server_dsn, new_database(server_dsn) as owner_dsn:
        with closing(connect(owner_dsn)) as owner:
            execute_file(owner, "schema")
            service_dsn = make_roles(server_dsn, owner, owner_dsn)
            owner_uri = as_uri(owner)
        connect(service_dsn).close()  # fails here, not in the first test
        yield DatabaseSwitch(server_dsn, owner_dsn), owner_dsn, owner_uri, service_dsn


def _connect_owner(owner_dsn: str) -> Connection:
    owner = connect(owner_dsn)
    with owner.cursor() as cursor:
        cursor.execute("SET timezone = 'UTC'")  # for times without an offset
        cursor.execute("SET lock_timeout = '2s'")  # a test may leave an open transaction
    return owner


def _commands(editor: CaseEditor, settings: Settings) -> Mapping[str, Callable[..., object]]:
    return {
        "add_case": editor.add_case,
        "add_cases": editor.add_cases,
        "update_case": editor.update_case,
        "clear": editor.clear,
        "flush_log": _flush_log,
        "token": partial(_mint_token, settings),
    }


def _mint_token(settings: Settings, /, user_id: str, minutes: int = 60) -> str:
    if not (isinstance(user_id, str) and canonical_uuid(user_id)):
        raise CommandRefused(f"user_id {UUID_RULE}")
    if not isinstance(minutes, int):
        raise CommandRefused("minutes must be an integer")
    return mint_token(settings, user_id, minutes=minutes)


def _flush_log() -> None:
    for logger in (logging.getLogger(), logging.getLogger("medmitra_cases.audit")):
        for handler in logger.handlers:
            handler.flush()


def _start_commands(
    database_url: str, commands: Mapping[str, Callable[..., object]], urls: Sequence[str]
) -> None:
    write_json_line({"url": urls[0], "database_url": database_url})
    # A daemon thread: it may still read from stdin when a signal ends the process.
    Thread(target=run_commands, args=(commands,), daemon=True).start()
