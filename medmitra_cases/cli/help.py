"""Commands whose help ends with examples, the environment variables they read, and their exit status."""

import inspect
import textwrap
from collections.abc import Iterable
from typing import Any

import click
from marshmallow import missing

from medmitra_cases.settings import SettingsSchema

_SETTINGS = {str(field.data_key): field for field in SettingsSchema().fields.values()}


# Of a command that has none to add.
STATUSES = (
    ("0", "it is done"),
    ("1", "an error, told in one line on stderr"),
    ("2", "wrong usage, told likewise"),
)


class Command(click.Command):
    """A command that explains itself at the end of its help."""

    def __init__(
        self,
        *args: Any,
        examples: str = "",
        variables: Iterable[tuple[str, str]] = (),
        statuses: Iterable[tuple[str, str]] = STATUSES,
        **kwargs: Any,
    ) -> None:
        """Keep what the help ends with.

        Args:
            *args: As click has them.
            examples: Lines for a shell.
            variables: The environment variables that the command reads, each with its meaning.
            statuses: The exit statuses, each with its meaning.
            **kwargs: As click has them.
        """
        super().__init__(*args, **kwargs)
        self._examples = inspect.cleandoc(examples)
        self._variables = list(variables)
        self._statuses = list(statuses)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the end of the help.

        Args:
            ctx: As click has it.
            formatter: What it is written to.
        """
        super().format_epilog(ctx, formatter)
        if self._examples:
            with formatter.section("Examples"):
                formatter.write(f"{textwrap.indent(self._examples, '  ')}\n")
        if self._variables:
            with formatter.section("Environment"):
                for name, meaning in self._variables:
                    formatter.write(f"  {name}\n{_wrapped(meaning, formatter.width)}\n")
        with formatter.section("Exit status"):
            formatter.write_dl(self._statuses)


def describe_settings(*names: str) -> list[tuple[str, str]]:
    """Describe settings for the help of the command that they act in.

    Args:
        *names: Their variables; without any, all settings.

    Returns:
        Each variable, with its default, and its meaning.
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


def _wrapped(text: str, width: int) -> str:
    """Wrap a text, but no URL in it."""
    indent = 6 * " "
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
