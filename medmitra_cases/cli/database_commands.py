"""The commands that prepare a database and look at it: init-db, load-sample, check."""

import io
import os
import sys
from collections import Counter
from contextlib import closing

import click

from medmitra_cases.checks import Column, Verdict, check_database, describe_cases
from medmitra_cases.cli.help import Command, describe_settings
from medmitra_cases.cli.sample import copy_synthetic_cases, insert_published_cases
from medmitra_cases.database import connect, execute_file, psql
from medmitra_cases.settings import Settings

_COLORS = {Verdict.GOOD: "green", Verdict.ADVICE: "yellow", Verdict.MISSING: "red"}


@click.command(
    cls=Command,
    examples="""
    DATABASE_URL=postgresql://owner@db.example/clinic medmitra-cases init-db
    """,
    variables=describe_settings("DATABASE_URL"),
)
def init_db() -> None:
    """Make the table medmitra.cases, as the database's owner.

    Run again, it changes nothing. Behind a transaction that holds the table it waits for 3 s, and gives up.
    """
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


@click.command(
    cls=Command,
    examples="""
    medmitra-cases load-sample
    medmitra-cases load-sample --cases 1000 \\
      --user 3f2b8c1e-0d4a-4b6e-9a57-6c1d2e3f4a5b
    """,
    variables=describe_settings("DATABASE_URL"),
)
@click.option("--user", type=click.UUID, help="The doctor who gets made-up cases.")
@click.option(
    "--cases", type=click.IntRange(1), metavar="N", help="How many; all of them or, interrupted, none."
)
def load_sample(user: object | None, cases: int | None) -> None:
    """Fill medmitra.cases with cases to try things out on.

    They are the two published cases or, with --user and --cases, N made-up ones of one doctor.
    DATABASE_URL must name a role that may write: the owner, not the service's own.
    """
    if (user is None) != (cases is None):
        raise click.UsageError("--user and --cases go together")
    with closing(connect(Settings.from_environ(os.environ).database_url)) as connection:
        columns = describe_cases(connection)
        if not columns:
            raise click.ClickException("there is no table medmitra.cases: medmitra-cases init-db makes it")
        _refuse_view(columns)
        if cases is None:
            inserted = insert_published_cases(connection)
            click.echo(f"Inserted {inserted} of the 2 published cases; {2 - inserted} were there already.")
            return
        connection.autocommit = False  # all or, interrupted, none
        with click.progressbar(
            length=cases,
            label="Loading cases",
            show_pos=True,
            show_percent=True,
            width=0,
            file=sys.stderr if sys.stderr and sys.stderr.isatty() else io.StringIO(),
            color=False,  # click then does not hide the cursor either, which Ctrl-C would leave hidden
        ) as bar:
            copy_synthetic_cases(connection, str(user), cases, bar.update)
        connection.commit()
    click.echo(f"Inserted {cases} cases of {user}.")


@click.command(
    cls=Command,
    examples="""
    medmitra-cases check
    medmitra-cases check && medmitra-cases serve
    """,
    variables=describe_settings("DATABASE_URL", "MEDMITRA_ETAG_SOURCE"),
    statuses=[
        ("0", "nothing is missing; there may be advice"),
        ("1", "something is missing, or the database could not be looked at"),
        ("2", "wrong usage"),
    ],
)
def check() -> None:
    """Compare the database with what the service needs.

    Marks what it finds: ✓ as needed, ! worth a change, ✗ missing, so that the service cannot do its work.
    After an arrow it says what to do about it.

    Run it as the service would run: with its settings, as its role. It changes nothing.
    """
    settings = Settings.from_environ(os.environ)
    found: Counter[Verdict] = Counter()
    with closing(connect(settings.database_url)) as connection:
        for finding in check_database(connection, row_versions=settings.row_versions):
            found[finding.verdict] += 1
            click.echo(f"{click.style(finding.verdict.value, fg=_COLORS[finding.verdict])} {finding.seen}")
            if finding.verdict is not Verdict.GOOD:
                click.echo(f"  → {finding.hint}")
    click.echo(_summary(found))
    if found[Verdict.MISSING]:
        raise SystemExit(1)


def _refuse_view(columns: list[Column]) -> None:
    if columns and columns[0].kind == "view":
        raise click.ClickException(
            "medmitra.cases is a view of a table that is not this service's; it is left as it is"
        )


def _summary(found: Counter[Verdict]) -> str:
    if found[Verdict.MISSING]:
        return f"Not ready to serve: {found[Verdict.MISSING]} of {found.total()} missing (✗)."
    if found[Verdict.ADVICE]:
        return f"Ready to serve; {found[Verdict.ADVICE]} of {found.total()} worth a change (!)."
    return f"Ready to serve: all {found.total()} are as needed."
