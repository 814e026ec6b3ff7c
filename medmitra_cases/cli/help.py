"""Commands whose help includes examples, environment variables and exit statuses."""

import inspect
import textwrap
from collections.abc import Iterable
from typing import Any

import click
from marshmallow import missing

from medmitra_cases.settings import SettingsSchema

_SETTINGS = {str(field.data_key): field for field in SettingsSchema().fields.values()}

DEFAULT_STATUSES = (
    ("0", "success"),
    ("1", "an error, reported in one line on stderr"),
    ("2", "wrong usage, reported in one line on stderr"),
)


class Command(click.Command):
    """A command with examples, environment variables and exit statuses at the end of its help."""

    def __init__(
        self,
        *args: Any,
        examples: str = "",
        variables: Iterable[tuple[str, str]] = (),
        statuses: Iterable[tuple[str, str]] = DEFAULT_STATUSES,
        **kwargs: Any,
    ) -> None:
        """Create the command.

        Args:
            *args: Arguments of ``click.Command``.
            examples: Shell commands, one per line.
            variables: Environment variables that the command reads, each with its meaning.
            statuses: Exit statuses, each with its meaning.
            **kwargs: Arguments of ``click.Command``.
        """
        super().__init__(*args, **kwargs)
        self._examples = inspect.cleandoc(examples)
        self._variables = list(variables)
        self._statuses = list(statuses)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections Examples, Environment and Exit status."""
        super().format_epilog(ctx, formatter)
        if self._examples:
            with formatter.section("Examples"):
                formatter.write(f"{textwrap.indent(self._examples, '  ')}\n")
        if self._variables:
            with formatter.section("Environment"):
                for name, meaning in self._variables:
                    formatter.write(f"  {name}\n{_wrap(meaning, formatter.width)}\n")
        with formatter.section("Exit status"):
            formatter.write_dl(self._statuses)


def describe_settings(*names: str) -> list[tuple[str, str]]:
    """Describe settings for the help of a command.

    Args:
        *names: Environment variables; all settings if there are none.

    Returns:
        Each variable with its default, and its meaning.
    """
    return [
        (_with_default(name), str(_SETTINGS[name].metadata["help"]).replace("`", ""))
        for name in names or _SETTINGS
    ]


def _with_default(name: str) -> str:
    default = _SETTINGS[name].load_default
    if default is missing:
        return f"{name}  [required]"
    return f"{name}  [default: {default}]" if default else name


def _wrap(text: str, width: int) -> str:
    """Wrap a text without breaking URLs."""
    indent = 6 * " "
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
