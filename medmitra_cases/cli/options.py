"""The option ``--listen`` of the commands that serve."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from marshmallow import ValidationError

from medmitra_cases.settings import must_be_listen_address

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])


def listen_option(meaning: str, default: str | None = None) -> Callable[[AnyCommand], AnyCommand]:
    """Give a command the option.

    Args:
        meaning: What its help says of it.
        default: ``HOST:PORT`` where it is left out.

    Returns:
        The decorator.
    """
    return click.option(
        "--listen", metavar="HOST:PORT", default=default, callback=_must_be_address, help=meaning
    )


def _must_be_address(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Name a mistake as it was typed: not as one of the variable that the option stands in for."""
    if value is not None:
        try:
            must_be_listen_address(value)
        except ValidationError as error:
            raise click.BadParameter(str(error.messages[0])) from None
    return value
