"""Every setting of the service: its variable, unit, default and meaning. All come from the environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate
from psycopg2.extensions import parse_dsn

from medmitra_cases.errors import SettingsError
from medmitra_cases.schemas import describe_invalid

_LISTEN = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+):(\d{1,5})\Z", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The validated settings. ``SettingsSchema`` holds their variables, defaults and meanings.

    Attributes:
        database_url: A libpq URI or ``key=value`` string. A secret: not part of the repr.
        listen: ``HOST:PORT``.
        reuse_port: Whether other processes may listen there, too.
        threads: Number of worker threads.
        database_wait_seconds: How long one request goes on trying to reach the database.
        keepalive_seconds: How long an idle client connection stays open.
    """

    database_url: str = field(repr=False)
    listen: str
    reuse_port: bool
    threads: int
    database_wait_seconds: float
    keepalive_seconds: int

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read and validate all settings together. A variable set to nothing counts as not set.

        Args:
            environ: Environment variables by name, such as ``os.environ``.

        Returns:
            The settings, defaults filled in.

        Raises:
            SettingsError: At least one is missing or malformed. The message names all of them.
        """
        try:
            settings: Settings = SettingsSchema().load(
                {name: value for name, value in environ.items() if value}
            )
        except ValidationError as error:
            # Not chained: the cause holds the refused values, passwords among them.
            raise SettingsError(describe_invalid(error)) from None
        return settings


def _is_database_url(value: str) -> None:
    try:
        parts = parse_dsn(value)
    except (psycopg2.ProgrammingError, UnicodeError):
        # Not chained: libpq quotes the part it could not read.
        raise ValidationError("is neither a libpq URI nor a key=value string") from None
    # The rest of an unescaped password spills into these, and libpq would name them in its errors.
    spilled = (
        "@" in parts.get("host", "") + parts.get("dbname", "")
        or not parts.get("port", "0").replace(",", "").isdigit()
    )
    if "://" in value and spilled:
        raise ValidationError("is a URI that cannot be split (in a password, write @ : / as %40 %3A %2F)")


def _is_listen_address(value: str) -> None:
    address = _LISTEN.match(value)
    if address is None or int(address[2]) > 65535:
        raise ValidationError("must be HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000")


def _number(kind: type[fields.Field[Any]], default: float, low: float, high: float, **kwargs: Any) -> Any:
    out_of_range = f"must be between {low} and {high}"
    return kind(
        load_default=default,
        validate=validate.Range(low, high, error=out_of_range),
        error_messages={"invalid": "must be a number", "too_large": out_of_range, "special": out_of_range},
        **kwargs,
    )


class SettingsSchema(Schema):
    """The one description of the settings; the README's table is held to it by a test."""

    class Meta:
        """Options read by marshmallow."""

        unknown = EXCLUDE  # the environment holds more than our settings

    database_url = fields.String(
        data_key="DATABASE_URL",
        required=True,
        validate=_is_database_url,
        error_messages={
            "required": "is not set: a libpq URI or key=value string"
            " (no database at hand? `medmitra-cases demo` brings one)"
        },
        metadata={
            "help": "The database: any libpq URI or `key=value` string, several hosts included. Secret."
        },
    )
    listen = fields.String(
        data_key="MEDMITRA_LISTEN",
        load_default="127.0.0.1:8000",
        validate=_is_listen_address,
        metadata={"help": "`HOST:PORT` that `serve` and `demo` listen on. Port 0 takes a free one."},
    )
    reuse_port = fields.Boolean(
        data_key="MEDMITRA_REUSE_PORT",
        load_default=False,
        error_messages={"invalid": "must be true or false"},
        metadata={
            "help": "Whether several `serve` of one user may listen on the same `HOST:PORT` (`SO_REUSEPORT`)."
        },
    )
    threads = _number(
        fields.Integer,
        8,
        1,
        256,
        data_key="MEDMITRA_THREADS",
        metadata={"help": "Requests worked on at once. Each thread holds one connection to the database."},
    )
    database_wait_seconds = _number(
        fields.Float,
        3,
        0,
        60,
        data_key="MEDMITRA_DATABASE_WAIT_SECONDS",
        metadata={
            "help": "How long a request goes on trying to reach a database that is gone before it gets a 500."
        },
    )
    keepalive_seconds = _number(
        fields.Integer,
        75,
        1,
        3600,
        data_key="MEDMITRA_KEEPALIVE_SECONDS",
        metadata={
            "help": "How long an idle client connection stays open, and a reader who takes nothing is waited"
            " for. Keep it above the proxy's own (nginx: `keepalive_timeout` in `upstream`, 60 s)."
        },
    )

    @post_load
    def make(self, values: dict[str, Any], **_: Any) -> Settings:
        """Build the settings from validated values.

        Args:
            values: One value per attribute of ``Settings``.

        Returns:
            The settings.
        """
        return Settings(**values)
