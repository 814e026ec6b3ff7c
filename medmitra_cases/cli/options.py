"""The option ``--listen`` of the commands that serve."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from marshmallow import ValidationError

from medmitra_cases.settings import must_be_listen_address

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])


def listen_option(meaning: str, default: str | None = None) -> Callable[[AnyCommand], AnyCommand]:
    """Create the option.

    Args:
        meaning: The help text.
        default: The ``HOST:PORT`` of a command line without the option.

    Returns:
        A decorator for a command.
    """
    return click.option(
        "--listen", metavar="HOST:PORT", default=default, callback=_must_be_address, help=meaning
    )


def _must_be_address(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Report an invalid address as an error of the option, not of ``MEDMITRA_LISTEN``."""
    if value is not None:
        try:
            must_be_listen_address(value)
        except ValidationError as error:
            raise click.BadParameter(str(error.messages[0])) from None
    return value
