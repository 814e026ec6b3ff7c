"""The command ``harness``: the service on an empty database, and cases as a test wants them."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from inspect import signature
from threading import Thread
from typing import Any

import click
import msgspec
import psycopg2

from medmitra_cases import serving
from medmitra_cases.command_help import Command
from medmitra_cases.database_commands import execute_file
from medmitra_cases.errors import MedmitraCasesError
from medmitra_cases.settings import Settings
from medmitra_cases.signals import exit_on_signals
from medmitra_cases.testing.case_editor import CaseEditor
from medmitra_cases.testing.postgres import as_uri, make_roles, new_database, postgres_server
from medmitra_cases.tokens import mint_token

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
)
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:0", help="Listen here, not on a free port.")
def harness(listen: str) -> None:
    """Serve tests in any language, from an empty database.

    Prints one line of JSON once it answers, and ends when its stdin closes. A line of JSON on stdin asks for
    something, and is answered with a line: {"result": ...}, which is the case, null or the token, or
    {"error": "..."}.
    """
    environ = {**DEFAULTS, **{name: value for name, value in os.environ.items() if value}}
    environ["MEDMITRA_LISTEN"] = listen
    # Mistakes show before Postgres starts.
    Settings.from_environ({**environ, "DATABASE_URL": "dbname=postgres"})
    with exit_on_signals(), _empty_database() as (owner_dsn, service_dsn):
        settings = Settings.from_environ({**environ, "DATABASE_URL": service_dsn})
        with closing(psycopg2.connect(owner_dsn)) as owner:
            owner.autocommit = True
            with owner.cursor() as cursor:
                cursor.execute("SET timezone = 'UTC'")  # of times without an offset
                cursor.execute("SET lock_timeout = '10s'")
            commands = _commands(CaseEditor(owner), settings)
            serving.serve(settings, partial(_begin, owner_dsn, commands))


@contextmanager
def _empty_database() -> Iterator[tuple[str, str]]:
    with postgres_server() as server_dsn, new_database(server_dsn) as owner_dsn:
        with closing(psycopg2.connect(owner_dsn)) as owner:
            owner.autocommit = True
            execute_file(owner, "schema")
            service_dsn = make_roles(server_dsn, owner, owner_dsn)
        psycopg2.connect(service_dsn).close()  # better now than in the first test
        yield owner_dsn, service_dsn


def _commands(editor: CaseEditor, settings: Settings) -> Mapping[str, Callable[..., object]]:
    return {
        "add_case": editor.add_case,
        "update_case": editor.update_case,
        "clear": editor.clear,
        "flush_log": _flush_log,
        "token": lambda user_id, minutes=60: mint_token(settings, user_id, minutes=minutes),
    }


def _flush_log() -> None:
    for logger in (logging.getLogger(), logging.getLogger("medmitra_cases.audit")):
        for handler in logger.handlers:
            handler.flush()


def _begin(owner_dsn: str, commands: Mapping[str, Callable[..., object]], urls: Sequence[str]) -> None:
    _say({"url": urls[0], "database_url": as_uri(owner_dsn)})
    # A daemon: where a signal ends the process, it still waits for a line.
    Thread(target=_obey, args=(commands,), daemon=True).start()


def _obey(commands: Mapping[str, Callable[..., object]]) -> None:
    try:
        # Not sys.stdin: its lock, which a thread that reads holds, makes Python abort when it ends.
        with suppress(BrokenPipeError), open(0, "rb", buffering=0, closefd=False) as requests:
            for line in requests:
                _say(_answer(line, commands))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def _answer(line: bytes, commands: Mapping[str, Callable[..., object]]) -> dict[str, object]:
    try:
        ((name, arguments),) = msgspec.json.decode(line, type=dict[str, dict[str, Any]]).items()
        command = partial(commands[name], **arguments)
        signature(command).bind()
    except (ValueError, KeyError, TypeError):
        return {"error": f'a line must be {{"…": {{…}}}}: one of {", ".join(commands)}, and its arguments'}
    try:
        return {"result": command()}
    except MedmitraCasesError as error:
        return {"error": str(error)}


def _say(what: object) -> None:
    click.echo(msgspec.json.encode(what))
