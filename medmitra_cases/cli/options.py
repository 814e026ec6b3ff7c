"""The type of the option ``--listen``."""

import click
from marshmallow import ValidationError

from medmitra_cases.settings import must_be_listen_address


class ListenAddress(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions of click
    """``HOST:PORT``; an invalid one is an error of the option, not of ``MEDMITRA_LISTEN``."""

    name = "HOST:PORT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the address."""
        try:
            must_be_listen_address(value)
        except ValidationError as error:
            self.fail(str(error.messages[0]), param, ctx)
        return value
