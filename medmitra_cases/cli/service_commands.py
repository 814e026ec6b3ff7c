"""The commands that run the service or issue its tokens: serve, demo, token."""

import logging
import os
import signal
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import click
from psycopg2.extensions import make_dsn

from medmitra_cases import contract
from medmitra_cases.auth import mint_token
from medmitra_cases.cli.help import Command, describe_settings
from medmitra_cases.cli.options import ListenAddress
from medmitra_cases.cli.sample import insert_published_cases
from medmitra_cases.cli.start_line import start_line
from medmitra_cases.database import connect, execute_file
from medmitra_cases.embedded import embedded_postgres
from medmitra_cases.server import serve as run_service
from medmitra_cases.settings import Settings
from medmitra_cases.telemetry import exit_on_signals
from medmitra_cases.testing.postgres import as_uri

DEFAULT_TOKEN_MINUTES = 60

# A placeholder: DATABASE_URL is required, but these commands do not connect to it.
_UNUSED_DATABASE_URL = "dbname=postgres"

_STATUSES = (
    ("0", "ended by SIGTERM, SIGHUP or Ctrl-C; every request has its response"),
    ("1", "an error, or requests were cut off before their response was complete"),
    ("2", "wrong usage"),
)

_log = logging.getLogger(__name__)

_listen_option = click.option(
    "--listen",
    type=ListenAddress(),
    help="Address to listen on, instead of MEDMITRA_LISTEN. Port 0 takes a free port.",
)


@click.command(
    cls=Command,
    examples="""
    medmitra-cases serve
    MEDMITRA_THREADS=4 medmitra-cases serve --listen 127.0.0.1:9000
    """,
    variables=describe_settings(),
    statuses=_STATUSES,
)
@_listen_option
def serve(listen: str | None) -> None:
    """Serve the cases of the database in DATABASE_URL.

    It prints one line on stdout when it accepts requests. If stdout is full or closed, the line goes
    to the log. The log and the audit go to stderr.
    On SIGTERM, SIGHUP or Ctrl-C it completes the open requests and ends. It ends at once on a
    second signal, or after MEDMITRA_DRAIN_SECONDS.
    """
    exit_on_signals()
    settings = _settings(MEDMITRA_LISTEN=listen)
    run_service(settings, partial(_print_start_line, settings))


@click.command(
    cls=Command,
    examples="""
    medmitra-cases demo
    medmitra-cases demo --listen 127.0.0.1:0
    """,
    variables=[
        *describe_settings("MEDMITRA_LISTEN"),
        ("MEDMITRA_ADMIN_LISTEN  [default: off]", "See medmitra-cases serve --help."),
        (
            "XDG_DATA_HOME  [default: ~/.local/share, for root /var/lib]",
            "The database is in medmitra-cases/demo below this folder.",
        ),
        ("MEDMITRA_...", "All other settings of serve."),
    ],
    statuses=_STATUSES,
)
@_listen_option
def demo(listen: str | None) -> None:
    """Serve the published example from an embedded Postgres.

    It needs the extra: pip install 'medmitra-cases[demo]'. Its database is kept for the next demo.
    It prints the DATABASE_URL with which other programs can write to this database. The database
    in the variable DATABASE_URL is not used. If its Postgres ends, the demo ends with status 1.
    """
    # No admin listener by default: its port may belong to a service on this machine.
    overrides = {
        "MEDMITRA_LISTEN": listen,
        "MEDMITRA_ADMIN_LISTEN": os.environ.get("MEDMITRA_ADMIN_LISTEN") or "off",
    }
    # Report wrong settings before Postgres starts.
    _settings(DATABASE_URL=_UNUSED_DATABASE_URL, **overrides)
    exit_on_signals()
    with embedded_postgres(_demo_folder(), on_end=partial(os.kill, os.getpid(), signal.SIGTERM)) as owner_dsn:
        with closing(connect(owner_dsn)) as connection:
            for name in ("schema", "roles"):
                execute_file(connection, name)
            insert_published_cases(connection)
            owner_uri = as_uri(connection)
        service_dsn = make_dsn(owner_dsn, user="medmitra_cases")
        settings = _settings(DATABASE_URL=service_dsn, **overrides)
        run_service(settings, partial(_print_demo_start, settings, owner_uri))


@click.command(
    cls=Command,
    examples="""
    user=b8acad4b-4944-4d66-b405-de70886e7248
    curl -H "Authorization: Bearer $(medmitra-cases token --user $user)" \\
      "http://127.0.0.1:8000/cases/all_cases?user_id=$user"
    """,
    variables=describe_settings("MEDMITRA_JWT_SECRET", "MEDMITRA_JWT_AUDIENCE", "MEDMITRA_JWT_ISSUER"),
)
@click.option("--user", type=click.UUID, required=True, help="The doctor that the token is for.")
@click.option(
    "--minutes",
    type=click.IntRange(1, 1440),
    default=DEFAULT_TOKEN_MINUTES,
    show_default=True,
    metavar="N",
    help="Lifetime of the token in minutes, at most a day.",
)
def token(user: object, minutes: int) -> None:
    """Print a token of one doctor, to try the service.

    The token is signed with MEDMITRA_JWT_SECRET, which must be set.
    """
    click.echo(mint_token(_settings(DATABASE_URL=_UNUSED_DATABASE_URL), str(user), minutes=minutes))


def _settings(**overrides: str | None) -> Settings:
    given = {name: value for name, value in overrides.items() if value is not None}
    return Settings.from_environ(os.environ, given)


def _print_start_line(settings: Settings, urls: Sequence[str], *more_lines: str) -> None:
    line = start_line(settings, urls)
    try:
        click.echo("\n".join([line, *more_lines]))
    except OSError as error:  # no reason to refuse requests
        _log.warning("cannot print to stdout (%s): %s", error.strerror, line)


def _print_demo_start(settings: Settings, owner_uri: str, urls: Sequence[str]) -> None:
    token = ""
    if settings.jwt_secret is not None:
        token = mint_token(settings, contract.USER_ID, minutes=DEFAULT_TOKEN_MINUTES)
    elif settings.needs_tokens:
        token = "$TOKEN"  # noqa: S105, only the issuer of MEDMITRA_JWKS_URL can sign one
    header = f' -H "Authorization: Bearer {token}"' if token else ""
    _print_start_line(
        settings,
        urls,
        f'Try: curl "{urls[0]}/cases/all_cases?user_id={contract.USER_ID}"{header}',
        *([f"Documentation: {urls[0]}/docs"] if settings.docs else []),
        f"To write to its database: export DATABASE_URL='{owner_uri}'",
        "Press Ctrl-C to stop the demo.",
    )


def _demo_folder() -> Path:
    # Postgres does not run as root, and its account cannot read below root's home folder.
    default = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local" / "share"
    return Path(os.environ.get("XDG_DATA_HOME") or default) / "medmitra-cases" / "demo"
