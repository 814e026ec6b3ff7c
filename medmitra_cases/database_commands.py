"""The commands that prepare a database and look at it: init-db, load-sample, check."""

import os
import sys
from contextlib import closing

import click
from psycopg2.extensions import connection as Connection

from medmitra_cases.catalogue import Column, describe_cases
from medmitra_cases.checks import check_database
from medmitra_cases.connection import connect
from medmitra_cases.findings import Verdict
from medmitra_cases.queries import psql, read_sql
from medmitra_cases.sample import copy_synthetic_cases, insert_published_cases
from medmitra_cases.settings import Settings


@click.command()
def init_db() -> None:
    """Make the table medmitra.cases in DATABASE_URL, as its owner."""
    with closing(connect(Settings.from_environ(os.environ).database_url)) as connection:
        columns = describe_cases(connection)
        _refuse_view(columns)
        execute_file(connection, "schema")
    click.echo(
        "medmitra.cases was there already; its index and trigger are in place."
        if columns
        else "Made the table medmitra.cases, its index and the trigger that keeps updated_at."
    )
    click.echo(f"Next, the service's own role: {psql('roles.sql')}")


@click.command()
@click.option("--user", type=click.UUID, help="The doctor who gets made-up cases.")
@click.option("--cases", type=click.IntRange(1), metavar="N", help="How many.")
def load_sample(user: object | None, cases: int | None) -> None:
    """Fill medmitra.cases in DATABASE_URL: the two published cases, or N made-up ones of one doctor."""
    if (user is None) != (cases is None):
        raise click.UsageError("--user and --cases go together")
    with closing(connect(Settings.from_environ(os.environ).database_url)) as connection:
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


@click.command()
def check() -> None:
    """Compare DATABASE_URL with what the service needs; exit status 1 if something is missing."""
    settings = Settings.from_environ(os.environ)
    with closing(connect(settings.database_url)) as connection:
        findings = list(check_database(connection, row_versions=settings.row_versions))
    for finding in findings:
        click.echo(f"{finding.verdict.value} {finding.seen}")
        if finding.verdict is not Verdict.GOOD:
            click.echo(f"  → {finding.hint}")
    if any(finding.verdict is Verdict.MISSING for finding in findings):
        raise SystemExit(1)


def execute_file(connection: Connection, name: str) -> None:
    """Run a file of ``sql/``.

    Args:
        connection: As whom to run it.
        name: The file's name without ``.sql``.

    Raises:
        psycopg2.Error: The database refused.
    """
    with connection.cursor() as cursor:
        cursor.execute(read_sql(name))


def _refuse_view(columns: list[Column]) -> None:
    if columns and columns[0].kind == "view":
        raise click.ClickException(
            "medmitra.cases is a view of a table that is not this service's; it is left as it is"
        )
