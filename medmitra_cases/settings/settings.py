"""The settings of a process, read from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from marshmallow import ValidationError

from medmitra_cases.errors import SettingsError, describe_invalid
from medmitra_cases.settings.environment import describe_source, read_settings
from medmitra_cases.settings.schema import SettingsSchema


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The validated settings. ``SettingsSchema`` has their variables, defaults and meanings.

    The secrets are not part of the repr.
    """

    database_url: str = field(repr=False)
    listen: str
    reuse_port: bool
    threads: int
    database_wait_seconds: float
    connection_max_age_seconds: int
    keepalive_seconds: int
    drain_seconds: float
    admin_listen: str | None
    log_format: str
    jwt_secret: str | None = field(repr=False)
    jwt_secret_previous: str | None = field(repr=False)
    jwks_url: str | None
    jwt_audience: str
    jwt_issuer: str | None
    trust_user_id: bool
    etag_source: str
    cors_origins: tuple[str, ...]
    cors_headers: tuple[str, ...]
    docs: bool

    @property
    def needs_tokens(self) -> bool:
        """Whether every request for cases needs a token."""
        return self.jwt_secret is not None or self.jwks_url is not None

    @property
    def max_connections(self) -> int:
        """The maximum number of connections to Postgres of a process.

        One for each request that runs, as many for long lists that wait for their clients, and one for
        readiness.
        """
        return 2 * self.threads + 1

    @property
    def row_versions(self) -> bool | None:
        """Whether entity tags are made from row versions. None: if ``medmitra.cases`` has such versions."""
        return {"auto": None, "rows": True, "body": False}[self.etag_source]

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], overrides: Mapping[str, str] = MappingProxyType({})
    ) -> "Settings":
        """Read and validate all settings.

        An empty variable counts as not set; of settings that decide who may ask it is an error.

        Args:
            environ: The environment variables by name, such as ``os.environ``.
            overrides: Values that take the place of variables, and of the files of such variables.

        Returns:
            The settings, with defaults for variables that are not set.

        Raises:
            SettingsError: A setting is missing or invalid. The message names all of these settings.
        """
        try:
            values = read_settings(environ, overrides)
            return cls(**SettingsSchema().load(values))
        except ValidationError as error:
            # Not chained, because the cause contains the invalid values, such as passwords.
            messages = {describe_source(name, environ): found for name, found in error.messages_dict.items()}
            raise SettingsError(describe_invalid(ValidationError(messages))) from None
