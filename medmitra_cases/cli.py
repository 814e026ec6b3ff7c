"""The command ``medmitra-cases``."""

import io
import logging
import os
import sys
from contextlib import closing
from pathlib import Path

import click
import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn

from medmitra_cases import __version__
from medmitra_cases.app import DATABASE, create_app
from medmitra_cases.catalogue import Column, describe_cases
from medmitra_cases.checks import Verdict, check_database
from medmitra_cases.database import connect
from medmitra_cases.embedded import embedded_postgres
from medmitra_cases.errors import MedmitraCasesError
from medmitra_cases.listening import bound_sockets, inherited_sockets
from medmitra_cases.queries import psql, read_sql
from medmitra_cases.sample import copy_synthetic_cases, insert_published_cases
from medmitra_cases.server import Server, exit_on_signals
from medmitra_cases.settings import Settings

PUBLISHED_USER_ID = "b8acad4b-4944-4d66-b405-de70886e7248"


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


_listen = click.option("--listen", metavar="HOST:PORT", help="Listen here instead of at MEDMITRA_LISTEN.")


@main.command()
@_listen
def serve(listen: str | None) -> None:
    """Serve the cases in DATABASE_URL."""
    with exit_on_signals():
        _serve(_settings(MEDMITRA_LISTEN=listen))


@main.command()
@_listen
def demo(listen: str | None) -> None:
    """Serve the published example from a Postgres of its own.

    The database lives in a folder below XDG_DATA_HOME (as root: /var/lib) and is there again next time.
    Needs the extra: pip install 'medmitra-cases[demo]'. DATABASE_URL is not touched.
    """
    _settings(DATABASE_URL="dbname=postgres", MEDMITRA_LISTEN=listen)  # mistakes show before Postgres starts
    with exit_on_signals(), embedded_postgres(_demo_folder()) as owner_dsn:
        with closing(connect(owner_dsn)) as connection:
            for name in ("schema", "roles"):
                _execute(connection, name)
            insert_published_cases(connection)
        service_dsn = make_dsn(owner_dsn, user="medmitra_cases")
        _serve(_settings(DATABASE_URL=service_dsn, MEDMITRA_LISTEN=listen), try_it=True)


@main.command()
def init_db() -> None:
    """Make the table medmitra.cases in DATABASE_URL, as its owner."""
    with closing(connect(_settings().database_url)) as connection:
        columns = describe_cases(connection)
        _refuse_view(columns)
        _execute(connection, "schema")
    click.echo(
        "medmitra.cases was there already; its index and trigger are in place."
        if columns
        else "Made the table medmitra.cases, its index and the trigger that keeps updated_at."
    )
    click.echo(f"Next, the service's own role: {psql('roles.sql')}")


@main.command()
@click.option("--user", type=click.UUID, help="The doctor who gets made-up cases.")
@click.option("--cases", type=click.IntRange(1), metavar="N", help="How many.")
def load_sample(user: object | None, cases: int | None) -> None:
    """Fill medmitra.cases in DATABASE_URL: the two published cases, or N made-up ones of one doctor."""
    if (user is None) != (cases is None):
        raise click.UsageError("--user and --cases go together")
    with closing(connect(_settings().database_url)) as connection:
        _refuse_view(describe_cases(connection))
        if cases is None:
            inserted = insert_published_cases(connection)
            click.echo(f"Inserted {inserted} of the 2 published cases; {2 - inserted} were there already.")
            return
        connection.autocommit = False  # all or, interrupted, none
        with click.progressbar(length=cases, label="Loading cases", file=sys.stderr) as bar:
            copy_synthetic_cases(connection, str(user), cases, bar.update)
        connection.commit()
    click.echo(f"Inserted {cases} cases of {user}.")


@main.command()
def check() -> None:
    """Compare DATABASE_URL with what the service needs; exit status 1 if something is missing."""
    with closing(connect(_settings().database_url)) as connection:
        findings = list(check_database(connection))
    for finding in findings:
        click.echo(f"{finding.verdict.value} {finding.seen}")
        if finding.verdict is not Verdict.GOOD:
            click.echo(f"  → {finding.hint}")
    if any(finding.verdict is Verdict.MISSING for finding in findings):
        raise SystemExit(1)


def _settings(**overrides: str | None) -> Settings:
    chosen = {name: value for name, value in overrides.items() if value is not None}
    return Settings.from_environ({**os.environ, **chosen})


def _serve(settings: Settings, *, try_it: bool = False) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = create_app(settings)
    try:
        sockets = inherited_sockets(os.environ) or bound_sockets(
            settings.listen, reuse_port=settings.reuse_port
        )
        server = Server(app, settings, sockets)
        click.echo(f"Serving cases on {' and '.join(server.urls)}")
        if try_it:
            click.echo(
                f'Try: curl "{server.urls[0]}/cases/all_cases?user_id={PUBLISHED_USER_ID}"\nCtrl-C ends it.'
            )
        server.run()
    finally:
        app.extensions[DATABASE].close()


def _demo_folder() -> Path:
    # Below root's home the account that runs Postgres for root could not reach it.
    default = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local" / "share"
    return Path(os.environ.get("XDG_DATA_HOME") or default) / "medmitra-cases" / "demo"


def _execute(connection: Connection, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(read_sql(name))


def _refuse_view(columns: list[Column]) -> None:
    if columns and columns[0].kind == "view":
        raise click.ClickException(
            "medmitra.cases is a view of a table that is not this service's; it is left as it is"
        )
