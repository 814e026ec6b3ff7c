"""What all commands have in common: how they fail, what Ctrl-C does, when there are colours."""

import io
import os
import signal
import sys
from typing import Any, NoReturn

import click
import psycopg2

from medmitra_cases.cli.help import Command
from medmitra_cases.errors import MedmitraCasesError
from medmitra_cases.server import handle_signals


class CommandGroup(Command, click.Group):
    """Commands in the order in which they were added; without one of them, it shows its help.

    What is wrong outside of them is one line on stderr.
    """

    command_class = Command

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command, and end the process.

        Args:
            *args: As click has them.
            **extra: Likewise.

        Raises:
            SystemExit: Always. Its status is 0, 1 for an error or as the command has it, 2 for wrong usage.
        """
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that has no ✓ shows a ?
        # https://no-color.org; None is for colours on terminals.
        color = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
        try:
            # Ctrl-C kills the process: Python would not notice it while libpq waits for a server.
            handle_signals(signal.SIG_DFL, signal.SIGINT)
            status = super().main(*args, **{**extra, "color": color, "standalone_mode": False})
        except (click.ClickException, MedmitraCasesError, psycopg2.Error, OSError) as error:
            click.echo(f"{click.style('Error:', fg='red')} {_in_one_line(error)}", err=True, color=color)
            sys.exit(getattr(error, "exit_code", 1))
        sys.exit(status)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the command's name and arguments, as click does; without any, those that ask for help.

        Args:
            ctx: As click has it.
            args: What was typed.

        Returns:
            What is left.
        """
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """List the commands in the order in which they were added.

        Args:
            ctx: As click has it.

        Returns:
            Their names.
        """
        return list(self.commands)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        said = f"{error.format_message().rstrip('.')} (see {error.ctx.command_path} --help)"
    elif isinstance(error, click.ClickException):
        said = error.format_message()
    elif isinstance(error, psycopg2.Error):
        # Of what a server says, not the line of the statement; libpq's own words have no such parts.
        said = f"database: {error.diag.message_primary or error}"
    elif isinstance(error, OSError) and error.strerror:
        said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        said = str(error)
    return "; ".join(" ".join(line.split()) for line in said.splitlines() if line.strip())
