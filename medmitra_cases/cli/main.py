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
    medmitra-cases demo          # try the service on an embedded Postgres

    export DATABASE_URL=postgresql://owner@db.example/clinic
    medmitra-cases init-db       # prints the next step

    export DATABASE_URL=postgresql://medmitra_cases@db.example/clinic
    medmitra-cases check && medmitra-cases serve
    """,
    variables=[
        *describe_settings("DATABASE_URL"),
        ("NO_COLOR", "If set, the output has no colours. Only output to a terminal has colours."),
    ],
    statuses=[
        ("0", "success"),
        (
            "1",
            "an error, reported in one line on stderr; check: a check failed; serve: requests were cut off",
        ),
        ("2", "wrong usage, reported in one line on stderr"),
        ("130, 143", "ended by Ctrl-C or SIGTERM; serve, demo and harness then return 0"),
    ],
)
@click.version_option(__version__)
def main() -> None:
    """Serve a doctor's patient cases from Postgres as JSON.

    The only endpoint is GET /cases/all_cases?user_id=UUID.

    Settings are environment variables. The help of each command lists the settings that it reads.
    """


for _command in (demo, init_db, load_sample, check, serve, token, harness):
    main.add_command(_command)
