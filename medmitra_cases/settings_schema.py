"""Every setting of the service: its variable, unit, default and meaning. All come from the environment."""

from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

from medmitra_cases import setting_rules


def _number(kind: type[fields.Field[Any]], default: float, low: float, high: float, **kwargs: Any) -> Any:
    out_of_range = f"must be between {low} and {high}"
    return kind(
        load_default=default,
        validate=validate.Range(low, high, error=out_of_range),
        error_messages={"invalid": "must be a number", "too_large": out_of_range, "special": out_of_range},
        **kwargs,
    )


def _boolean(name: str, meaning: str) -> fields.Boolean:
    return fields.Boolean(
        data_key=name,
        load_default=False,
        error_messages={"invalid": "must be true or false"},
        metadata={"help": meaning},
    )


class _Origins(fields.Field[tuple[str, ...]]):
    """Origins with commas in between."""

    def _deserialize(self, value: str, *_: Any, **__: Any) -> tuple[str, ...]:
        origins = tuple(origin.strip() for origin in value.split(","))
        for origin in origins:
            setting_rules.must_be_origin(origin)
        return origins


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
        validate=setting_rules.must_be_database_url,
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
        validate=setting_rules.must_be_listen_address,
        metadata={"help": "`HOST:PORT` that `serve` and `demo` listen on. Port 0 takes a free one."},
    )
    reuse_port = _boolean(
        "MEDMITRA_REUSE_PORT",
        "Whether several `serve` of one user may listen on the same `HOST:PORT` (`SO_REUSEPORT`).",
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

    jwt_secret = fields.String(
        data_key="MEDMITRA_JWT_SECRET",
        load_default=None,
        validate=setting_rules.must_be_secret,
        metadata={
            "help": "The secret that tokens are signed with (HS256), at least 32 bytes. With it, every"
            " request for cases needs a token. Secret."
        },
    )
    jwks_url = fields.String(
        data_key="MEDMITRA_JWKS_URL",
        load_default=None,
        validate=setting_rules.must_be_trustworthy_url,
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
    trust_user_id = _boolean(
        "MEDMITRA_TRUST_USER_ID",
        "Without tokens, `serve` listens on a loopback address or a Unix socket only, unless this says that"
        " what is in front of it has checked `user_id`.",
    )
    cors_origins = _Origins(
        data_key="MEDMITRA_CORS_ORIGINS",
        load_default=(),
        metadata={
            "help": "The origins whose pages may read answers, exactly, with commas in between:"
            " `https://app.example,http://localhost:3000`."
        },
    )

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def agree(self, values: dict[str, Any], sent: Mapping[str, str], **_: Any) -> None:
        """See that no setting contradicts another, or counts for nothing without it.

        Args:
            values: One value per attribute of ``Settings``, those left out that are wrong.
            sent: The variables that are set.

        Raises:
            ValidationError: They do not agree.
        """
        sources = [name for name in ("MEDMITRA_JWT_SECRET", "MEDMITRA_JWKS_URL") if name in sent]
        mistakes = {
            name: [f"needs {' or '.join(('MEDMITRA_JWT_SECRET', 'MEDMITRA_JWKS_URL'))} beside it"]
            for name in ("MEDMITRA_JWT_AUDIENCE", "MEDMITRA_JWT_ISSUER")
            if name in sent and not sources
        }
        if len(sources) > 1:
            mistakes[sources[1]] = [f"cannot be set beside {sources[0]}: tokens are of one kind"]
        if sources and values.get("trust_user_id"):
            mistakes["MEDMITRA_TRUST_USER_ID"] = [f"cannot be set beside {sources[0]}: tokens say who asks"]
        if mistakes:
            raise ValidationError(mistakes)
