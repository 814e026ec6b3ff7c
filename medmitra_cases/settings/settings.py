"""The settings of a process, read from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from marshmallow import ValidationError

from medmitra_cases.errors import SettingsError, describe_invalid
from medmitra_cases.settings.schema import SettingsSchema


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
        drain_seconds: How long requests in flight get when the process is to end.
        admin_listen: ``HOST:PORT`` of the probes and the metrics; None for nowhere.
        log_format: ``text`` or ``json``.
        jwt_secret: What tokens are signed with (HS256), if that is how. Not part of the repr.
        jwks_url: Where the keys are that tokens are signed with (ES256, RS256), if that is how.
        jwt_audience: What a token's ``aud`` must be or contain.
        jwt_issuer: What a token's ``iss`` must be, if that matters.
        trust_user_id: Whether what is in front of the service has checked ``user_id``.
        etag_source: ``row_versions`` or ``body``.
        cors_origins: The origins whose pages may read answers.
        docs: Whether the service documents itself.
    """

    database_url: str = field(repr=False)
    listen: str
    reuse_port: bool
    threads: int
    database_wait_seconds: float
    keepalive_seconds: int
    drain_seconds: float
    admin_listen: str | None
    log_format: str
    jwt_secret: str | None = field(repr=False)
    jwks_url: str | None
    jwt_audience: str
    jwt_issuer: str | None
    trust_user_id: bool
    etag_source: str
    cors_origins: tuple[str, ...]
    docs: bool

    @property
    def needs_tokens(self) -> bool:
        """Whether every request for cases needs a token."""
        return self.jwt_secret is not None or self.jwks_url is not None

    @property
    def row_versions(self) -> bool:
        """Whether entity tags are made of the rows' versions."""
        return self.etag_source == "row_versions"

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
            values = SettingsSchema().load({name: value for name, value in environ.items() if value})
        except ValidationError as error:
            # Not chained: the cause holds the refused values, passwords among them.
            raise SettingsError(describe_invalid(error)) from None
        return cls(**values)
