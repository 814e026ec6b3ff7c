"""The command ``medmitra-cases``."""

import click

from medmitra_cases.cli.database_commands import check, init_db, load_sample
from medmitra_cases.cli.group import CommandGroup
from medmitra_cases.cli.harness import harness
from medmitra_cases.cli.help import describe_settings
from medmitra_cases.cli.service_commands import demo, serve, token
from medmitra_cases.contract import __version__


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples="""
    medmitra-cases demo          # try it, with a Postgres of its own

    export DATABASE_URL=postgresql://owner@db.example/clinic
    medmitra-cases init-db       # says what comes next

    export DATABASE_URL=postgresql://medmitra_cases@db.example/clinic
    medmitra-cases check && medmitra-cases serve
    """,
    variables=[
        *describe_settings("DATABASE_URL"),
        ("NO_COLOR", "If set, there are no colours; there are some on a terminal only, anyway."),
    ],
    statuses=[
        ("0", "it is done"),
        (
            "1",
            "an error, told in one line on stderr; check: something is missing; serve: clients were cut off",
        ),
        ("2", "wrong usage, told likewise"),
        ("130, 143", "ended by Ctrl-C, by SIGTERM; serve, demo and harness end with 0 then"),
    ],
)
@click.version_option(__version__)
def main() -> None:
    """Serve a doctor's patient cases from Postgres as JSON.

    The one endpoint is GET /cases/all_cases?user_id=UUID.

    Settings are environment variables; each command's help names those that act in it.
    """


for _command in (demo, init_db, load_sample, check, serve, token, harness):
    main.add_command(_command)
