"""The behaviour that all commands share: errors and colours."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

import click
import psycopg2

from medmitra_cases.cli.help import Command
from medmitra_cases.errors import MedmitraCasesError


class CommandGroup(Command, click.Group):
    """A group that lists its commands in insertion order, and prints every error as one line on stderr."""

    command_class = Command

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command and exit: status 0, 1 for an error, 2 for wrong usage, or the command's own."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # prints ? if the encoding has no ✓
        # https://no-color.org. None: click uses colours on a terminal only.
        color = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
        try:
            status = super().main(*args, **{**kwargs, "color": color, "standalone_mode": False})
        except (click.ClickException, MedmitraCasesError, psycopg2.Error, OSError) as error:
            with suppress(OSError):  # a full or closed stderr must not change the status
                click.echo(f"{click.style('Error:', fg='red')} {_one_line(error)}", err=True, color=color)
            sys.exit(getattr(error, "exit_code", 1))
        sys.exit(status)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Without any, show the help."""
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """List the commands in insertion order."""
        return list(self.commands)


def _one_line(error: Exception) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message = f"{error.format_message().rstrip('.')} (see {error.ctx.command_path} --help)"
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, psycopg2.Error):
        # The primary message of the server, without the statement. An error of libpq has only its text.
        message = f"database: {error.diag.message_primary or error}"
    elif isinstance(error, OSError) and error.errno == errno.EBADF:
        message = "stdout is closed"
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        message = str(error)
    return "; ".join(" ".join(line.split()) for line in message.splitlines() if line.strip())
