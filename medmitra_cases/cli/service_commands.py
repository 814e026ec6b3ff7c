"""The commands that serve, and one for the tokens that this may take: serve, demo, token."""

import os
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import click
from psycopg2.extensions import make_dsn

from medmitra_cases import contract
from medmitra_cases.auth import mint_token
from medmitra_cases.cli.help import Command, describe_settings
from medmitra_cases.cli.options import listen_option
from medmitra_cases.cli.sample import insert_published_cases
from medmitra_cases.cli.start_line import start_line
from medmitra_cases.database import connect, execute_file
from medmitra_cases.embedded import embedded_postgres
from medmitra_cases.server import exit_on_signals
from medmitra_cases.server import serve as run_service
from medmitra_cases.settings import Settings

DEFAULT_TOKEN_MINUTES = 60

# Stands in for DATABASE_URL where a command has none, or not yet.
_NO_DATABASE = "dbname=postgres"

_STATUSES = (
    ("0", "ended by SIGTERM, SIGHUP or Ctrl-C, with every request answered"),
    ("1", "an error, or clients were cut off before they had their answers"),
    ("2", "wrong usage"),
)


_listen = listen_option("Listen here instead of at MEDMITRA_LISTEN. Port 0 takes a free one.")


@click.command(
    cls=Command,
    examples="""
    medmitra-cases serve
    MEDMITRA_THREADS=4 medmitra-cases serve --listen 127.0.0.1:9000
    """,
    variables=describe_settings(),
    statuses=_STATUSES,
)
@_listen
def serve(listen: str | None) -> None:
    """Answer requests for the cases in DATABASE_URL.

    Prints one line on stdout once it does; its log and the audit go to stderr.
    On SIGTERM, SIGHUP or Ctrl-C it answers what it has, and ends. A second signal, or
    MEDMITRA_DRAIN_SECONDS, ends it at once.
    """
    exit_on_signals()
    settings = _settings(MEDMITRA_LISTEN=listen)
    run_service(settings, partial(_announce, settings))


@click.command(
    cls=Command,
    examples="""
    medmitra-cases demo
    medmitra-cases demo --listen 127.0.0.1:0
    """,
    variables=[
        *describe_settings("MEDMITRA_LISTEN"),
        ("MEDMITRA_ADMIN_LISTEN  [default: off]", "As for serve."),
        (
            "XDG_DATA_HOME  [default: ~/.local/share, for root /var/lib]",
            "The database is below, in medmitra-cases/demo.",
        ),
        ("MEDMITRA_...", "All other settings of serve."),
    ],
    statuses=_STATUSES,
)
@_listen
def demo(listen: str | None) -> None:
    """Serve the published example, from a Postgres of its own.

    For trying things out. The database is there again next time. DATABASE_URL is not touched.
    Needs the extra: pip install 'medmitra-cases[demo]'.
    """
    # A demo beside a service that runs: no second one of these, unless somebody wants it.
    chosen = {
        "MEDMITRA_LISTEN": listen,
        "MEDMITRA_ADMIN_LISTEN": os.environ.get("MEDMITRA_ADMIN_LISTEN") or "off",
    }
    _settings(DATABASE_URL=_NO_DATABASE, **chosen)  # mistakes show before Postgres starts
    exit_on_signals()
    with embedded_postgres(_demo_folder()) as owner_dsn:
        with closing(connect(owner_dsn)) as connection:
            for name in ("schema", "roles"):
                execute_file(connection, name)
            insert_published_cases(connection)
        service_dsn = make_dsn(owner_dsn, user="medmitra_cases")
        settings = _settings(DATABASE_URL=service_dsn, **chosen)
        run_service(settings, partial(_announce_demo, settings))


@click.command(
    cls=Command,
    examples="""
    user=b8acad4b-4944-4d66-b405-de70886e7248
    curl -H "Authorization: Bearer $(medmitra-cases token --user $user)" \\
      "http://127.0.0.1:8000/cases/all_cases?user_id=$user"
    """,
    variables=describe_settings("MEDMITRA_JWT_SECRET", "MEDMITRA_JWT_AUDIENCE", "MEDMITRA_JWT_ISSUER"),
)
@click.option("--user", type=click.UUID, required=True, help="The doctor the token is for.")
@click.option(
    "--minutes",
    type=click.IntRange(1, 1440),
    default=DEFAULT_TOKEN_MINUTES,
    show_default=True,
    metavar="N",
    help="How long it is good, at most a day.",
)
def token(user: object, minutes: int) -> None:
    """Print a token of one doctor, to try things out with.

    It is signed with MEDMITRA_JWT_SECRET, which has to be set.
    """
    click.echo(mint_token(_settings(DATABASE_URL=_NO_DATABASE), str(user), minutes=minutes))


def _settings(**overrides: str | None) -> Settings:
    chosen = {name: value for name, value in overrides.items() if value is not None}
    return Settings.from_environ({**os.environ, **chosen})


def _announce(settings: Settings, urls: Sequence[str]) -> None:
    click.echo(start_line(settings, urls))


def _announce_demo(settings: Settings, urls: Sequence[str]) -> None:
    _announce(settings, urls)
    token = ""
    if settings.jwt_secret is not None:
        token = mint_token(settings, contract.USER_ID, minutes=DEFAULT_TOKEN_MINUTES)
    elif settings.needs_tokens:
        token = "$TOKEN"  # noqa: S105, whoever has the key of MEDMITRA_JWKS_URL issues it
    header = f' -H "Authorization: Bearer {token}"' if token else ""
    click.echo(f'Try: curl "{urls[0]}/cases/all_cases?user_id={contract.USER_ID}"{header}')
    if settings.docs:
        click.echo(f"Or open {urls[0]}/docs")
    click.echo("Ctrl-C ends it.")


def _demo_folder() -> Path:
    # Below root's home the account that runs Postgres for root could not reach it.
    default = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local" / "share"
    return Path(os.environ.get("XDG_DATA_HOME") or default) / "medmitra-cases" / "demo"
