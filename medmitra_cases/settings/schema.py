"""Every setting of the service: its variable, unit, default and meaning. All come from the environment."""

from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

from medmitra_cases.settings import rules
from medmitra_cases.settings.fields import OptionalAddress, Origins, boolean, number


class SettingsSchema(Schema):
    """The one description of the settings, by the names of their attributes in ``Settings``.

    The README's table is held to it by a test.
    """

    class Meta:
        """Options read by marshmallow."""

        unknown = EXCLUDE  # the environment holds more than our settings

    database_url = fields.String(
        data_key="DATABASE_URL",
        required=True,
        validate=rules.must_be_database_url,
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
        validate=rules.must_be_listen_address,
        metadata={"help": "`HOST:PORT` that `serve` and `demo` listen on. Port 0 takes a free one."},
    )
    reuse_port = boolean(
        "MEDMITRA_REUSE_PORT",
        "Whether several `serve` of one user may listen on the same `HOST:PORT` (`SO_REUSEPORT`).",
    )
    threads = number(
        fields.Integer,
        8,
        1,
        256,
        data_key="MEDMITRA_THREADS",
        metadata={"help": "Requests worked on at once. Each thread holds one connection to the database."},
    )
    database_wait_seconds = number(
        fields.Float,
        3,
        0,
        60,
        data_key="MEDMITRA_DATABASE_WAIT_SECONDS",
        metadata={
            "help": "How long a request goes on trying to reach a database that is gone before it gets a 500."
        },
    )
    keepalive_seconds = number(
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
    drain_seconds = number(
        fields.Float,
        25,
        0,
        3600,
        data_key="MEDMITRA_DRAIN_SECONDS",
        metadata={
            "help": "How long after SIGTERM requests in flight may take before they are cut off. Keep it"
            " below what systemd or Kubernetes allow (`TimeoutStopSec`, `terminationGracePeriodSeconds`)."
        },
    )
    admin_listen = OptionalAddress(
        data_key="MEDMITRA_ADMIN_LISTEN",
        load_default="127.0.0.1:8001",
        metadata={
            "help": "`HOST:PORT` for probes and Prometheus: `/livez`, `/readyz`, `/metrics`. Each process"
            " needs one of its own, or `off`."
        },
    )
    log_format = fields.String(
        data_key="MEDMITRA_LOG_FORMAT",
        load_default="text",
        validate=validate.OneOf(("text", "json"), error="must be text or json"),
        metadata={"help": "`text` or `json`: how the service writes its own log. The audit is always JSON."},
    )
    jwt_secret = fields.String(
        data_key="MEDMITRA_JWT_SECRET",
        load_default=None,
        validate=rules.must_be_secret,
        metadata={
            "help": "The secret that tokens are signed with (HS256), at least 32 bytes. With it, every"
            " request for cases needs a token. Secret."
        },
    )
    jwks_url = fields.String(
        data_key="MEDMITRA_JWKS_URL",
        load_default=None,
        validate=rules.must_be_trustworthy_url,
        metadata={
            "help": "Instead of a secret: where the issuer publishes the keys of its tokens (ES256, RS256);"
            " for Supabase `https://<ref>.supabase.co/auth/v1/.well-known/jwks.json`."
        },
    )
    jwt_audience = fields.String(
        data_key="MEDMITRA_JWT_AUDIENCE",
        load_default="authenticated",
        metadata={"help": "What a token's `aud` must be or contain."},
    )
    jwt_issuer = fields.String(
        data_key="MEDMITRA_JWT_ISSUER",
        load_default=None,
        metadata={
            "help": "What a token's `iss` must be; for Supabase `https://<ref>.supabase.co/auth/v1`."
            " Not set: `iss` does not matter."
        },
    )
    trust_user_id = boolean(
        "MEDMITRA_TRUST_USER_ID",
        "Without tokens, `serve` listens on a loopback address or a Unix socket only, unless this says that"
        " what is in front of it has checked `user_id`.",
    )
    etag_source = fields.String(
        data_key="MEDMITRA_ETAG_SOURCE",
        load_default="row_versions",
        validate=validate.OneOf(("row_versions", "body"), error="must be row_versions or body"),
        metadata={
            "help": "What an `ETag` is made of: `row_versions` (Postgres's `xmin`), or the `body`, for"
            " databases without `xmin`. Then a 304 saves the transfer only."
        },
    )
    cors_origins = Origins(
        data_key="MEDMITRA_CORS_ORIGINS",
        load_default=(),
        metadata={
            "help": "The origins whose pages may read answers, exactly, with commas in between:"
            " `https://app.example,http://localhost:3000`."
        },
    )
    docs = boolean("MEDMITRA_DOCS", "Whether there are `/`, `/docs` and `/openapi.json`.", default=True)

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_combinations(self, values: dict[str, Any], sent: Mapping[str, str], **_: Any) -> None:
        """See that no setting contradicts another, or counts for nothing without it.

        Args:
            values: One value per attribute of ``Settings``, those left out that are wrong.
            sent: The variables that are set.

        Raises:
            ValidationError: They do not agree.
        """
        sources = [name for name in ("MEDMITRA_JWT_SECRET", "MEDMITRA_JWKS_URL") if name in sent]
        mistakes = {
            name: ["needs MEDMITRA_JWT_SECRET or MEDMITRA_JWKS_URL beside it"]
            for name in ("MEDMITRA_JWT_AUDIENCE", "MEDMITRA_JWT_ISSUER")
            if name in sent and not sources
        }
        if len(sources) > 1:
            mistakes[sources[1]] = [f"cannot be set beside {sources[0]}: tokens are of one kind"]
        if sources and values.get("trust_user_id"):
            mistakes["MEDMITRA_TRUST_USER_ID"] = [f"cannot be set beside {sources[0]}: tokens say who asks"]
        if mistakes:
            raise ValidationError(mistakes)
