"""The commands that prepare and check a database: init-db, load-sample, check."""

import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import click
import psycopg2

from medmitra_cases.checks import (
    Column,
    Finding,
    Verdict,
    check_certificate,
    check_database,
    check_keys,
    check_link,
    describe_cases,
)
from medmitra_cases.cli.help import Command, describe_settings
from medmitra_cases.cli.sample import copy_synthetic_cases, insert_published_cases
from medmitra_cases.database import connect, execute_file, psql, refuse_read_write
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
    """Create the table medmitra.cases, as the database's owner.

    A second run changes nothing. The command fails if a transaction locks the table for more than 3 s.
    """
    with closing(connect(Settings.from_environ(os.environ).database_url)) as connection:
        columns = describe_cases(connection)
        _refuse_view(columns)
        execute_file(connection, "schema")
    click.echo(
        "The table medmitra.cases already exists, with its index and trigger."
        if columns
        else "Created the table medmitra.cases, its index and the trigger that sets updated_at."
    )
    click.echo(f"Next, create the service's role: {psql('roles.sql')}")


@click.command(
    cls=Command,
    examples="""
    medmitra-cases load-sample
    medmitra-cases load-sample --cases 1000 \\
      --user 3f2b8c1e-0d4a-4b6e-9a57-6c1d2e3f4a5b
    """,
    variables=describe_settings("DATABASE_URL"),
)
@click.option("--user", type=click.UUID, help="The doctor of the synthetic cases.")
@click.option(
    "--cases",
    type=click.IntRange(1),
    metavar="N",
    help="Number of synthetic cases. An interrupted load inserts none.",
)
def load_sample(user: object | None, cases: int | None) -> None:
    """Insert sample cases into medmitra.cases.

    Without options it inserts the two published cases. With --user and --cases it inserts N synthetic
    cases of one doctor. DATABASE_URL must name a role that may write: the owner, not the service's role.
    """
    if (user is None) != (cases is None):
        raise click.UsageError("--user and --cases must be given together")
    with closing(connect(Settings.from_environ(os.environ).database_url)) as connection:
        columns = describe_cases(connection)
        if not columns:
            raise click.ClickException("the table medmitra.cases does not exist: run medmitra-cases init-db")
        _refuse_view(columns)
        if cases is None:
            inserted = insert_published_cases(connection)
            click.echo(f"Inserted {inserted} of the 2 published cases; {2 - inserted} already existed.")
            return
        connection.autocommit = False  # one transaction: an interrupted load inserts nothing
        with click.progressbar(
            length=cases,
            label="Loading cases",
            show_pos=True,
            show_percent=True,
            width=0,
            file=sys.stderr if sys.stderr and sys.stderr.isatty() else io.StringIO(),
            color=False,  # with colours click hides the cursor, and Ctrl-C would leave it hidden
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
    variables=describe_settings(
        "DATABASE_URL", "MEDMITRA_THREADS", "MEDMITRA_JWKS_URL", "MEDMITRA_ETAG_SOURCE"
    ),
    statuses=[
        ("0", "no check failed; there may be advice"),
        ("1", "a check failed, or the database cannot be queried"),
        ("2", "wrong usage"),
    ],
)
def check() -> None:
    """Compare the database with what the service needs.

    It prints one line for each check: ✓ passed; ! passed, but a change is recommended; ✗ failed, the
    service cannot work, or the database does not separate the doctors. A line that starts with → says what
    to change. Its commands connect to OWNER_URL, the address of the database for its owner.

    Run it with the settings and the role of the service. It changes nothing in the database. It also fetches
    the keys of MEDMITRA_JWKS_URL, and counts them.
    """
    counts: Counter[Verdict] = Counter()
    for finding in _findings(Settings.from_environ(os.environ)):
        counts[finding.verdict] += 1
        click.echo(f"{click.style(finding.verdict.value, fg=_COLORS[finding.verdict])} {finding.seen}")
        if finding.verdict is not Verdict.GOOD:
            click.echo(f"  → {finding.hint}")
    click.echo(_summary(counts))
    if counts[Verdict.MISSING]:
        raise SystemExit(1)


def _findings(settings: Settings) -> Iterator[Finding]:
    if settings.jwks_url is not None:
        yield check_keys(settings.jwks_url)
    refuse_read_write(settings.database_url)
    try:
        connection = connect(settings.database_url)
    except psycopg2.OperationalError as error:
        finding = check_certificate(error)
        if finding is None:
            raise
        yield finding
        return
    with closing(connection):
        yield check_link(connection)
        yield from check_database(
            connection, row_versions=settings.row_versions, max_connections=settings.max_connections
        )


def _refuse_view(columns: list[Column]) -> None:
    if columns and columns[0].kind == "view":
        raise click.ClickException("medmitra.cases is a view, not the service's own table; nothing changed")


def _summary(counts: Counter[Verdict]) -> str:
    if counts[Verdict.MISSING]:
        return f"Not ready to serve: {counts[Verdict.MISSING]} of {counts.total()} checks failed (✗)."
    if counts[Verdict.ADVICE]:
        return f"Ready to serve; {counts[Verdict.ADVICE]} of {counts.total()} checks recommend a change (!)."
    return f"Ready to serve: all {counts.total()} checks passed."
