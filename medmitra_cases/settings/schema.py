"""Every setting: its environment variable, unit, default and meaning."""

from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema

from medmitra_cases.settings import rules
from medmitra_cases.settings.contradictions import find_contradictions
from medmitra_cases.settings.fields import FieldNames, OptionalAddress, Origins, boolean, number

_SECRET = "Secret; the variable with `_FILE` at its end can name a file that has it."  # noqa: S105, a text


class SettingsSchema(Schema):
    """The settings by their attribute names in ``Settings``. A test compares docs/settings.md with them."""

    class Meta:
        """Options read by marshmallow."""

        unknown = EXCLUDE  # the environment has other variables, too

    database_url = fields.String(
        data_key="DATABASE_URL",
        required=True,
        validate=rules.must_be_database_url,
        error_messages={
            "required": "is not set: a libpq URI or key=value string"
            " (no database at hand? `medmitra-cases demo` brings one)"
        },
        metadata={
            "help": f"The database: a libpq URI or `key=value` string. It can name several hosts. {_SECRET}",
            "secret": True,
        },
    )
    listen = fields.String(
        data_key="MEDMITRA_LISTEN",
        load_default="127.0.0.1:8000",
        validate=rules.must_be_listen_address,
        metadata={"help": "`HOST:PORT` that `serve` and `demo` listen on. Port 0 selects a free port."},
    )
    reuse_port = boolean(
        "MEDMITRA_REUSE_PORT",
        "Allows several `serve` processes of one user to listen on the same `HOST:PORT` (`SO_REUSEPORT`).",
    )
    threads = number(
        fields.Integer,
        4,
        1,
        256,
        data_key="MEDMITRA_THREADS",
        metadata={
            "help": "Number of requests that a process runs at a time. Under another server, its number of"
            " threads. A process has at most twice as many database connections, and one more."
        },
    )
    database_wait_seconds = number(
        fields.Float,
        3,
        0,
        60,
        data_key="MEDMITRA_DATABASE_WAIT_SECONDS",
        metadata={
            "help": "How long a request retries to connect to an unavailable database before it gets a 500."
        },
    )
    connection_max_age_seconds = number(
        fields.Integer,
        1800,
        1,
        86_400,
        data_key="MEDMITRA_CONNECTION_MAX_AGE_SECONDS",
        metadata={
            "help": "Maximum age of a database connection. The service replaces an older one between two"
            " requests, so that it finds a database whose name has moved."
        },
    )
    keepalive_seconds = number(
        fields.Integer,
        75,
        1,
        3600,
        data_key="MEDMITRA_KEEPALIVE_SECONDS",
        metadata={
            "help": "How long the server keeps an idle client connection open, and how long it waits for a"
            " client that reads no data. Keep it above the timeout of the proxy (nginx: `keepalive_timeout`"
            " in `upstream`, 60 s)."
        },
    )
    drain_seconds = number(
        fields.Float,
        25,
        0,
        3600,
        data_key="MEDMITRA_DRAIN_SECONDS",
        metadata={
            "help": "How long requests in flight can take after SIGTERM. Then the server closes their"
            " connections. Keep it below the limit of systemd or Kubernetes (`TimeoutStopSec`,"
            " `terminationGracePeriodSeconds`)."
        },
    )
    admin_listen = OptionalAddress(
        data_key="MEDMITRA_ADMIN_LISTEN",
        load_default="127.0.0.1:8001",
        metadata={
            "help": "`HOST:PORT` of the admin listener, for probes and Prometheus: `/livez`, `/readyz`,"
            " `/metrics`. Each process needs a different address, or `off`."
        },
    )
    log_format = fields.String(
        data_key="MEDMITRA_LOG_FORMAT",
        load_default="text",
        validate=validate.OneOf(("text", "json"), error="must be text or json"),
        metadata={"help": "Format of the log: `text` or `json`. The audit is always JSON."},
    )
    jwt_secret = fields.String(
        data_key="MEDMITRA_JWT_SECRET",
        load_default=None,
        validate=rules.must_be_secret,
        metadata={
            "help": "The secret that signs the tokens (HS256), at least 32 bytes. If it is set, every"
            f" request for cases needs a token. {_SECRET}",
            "secret": True,
        },
    )
    jwt_secret_previous = fields.String(
        data_key="MEDMITRA_JWT_SECRET_PREVIOUS",
        load_default=None,
        validate=rules.must_be_secret,
        metadata={
            "help": "A second secret, during a change of the secret: tokens that it has signed are valid,"
            f" too. {_SECRET}",
            "secret": True,
        },
    )
    jwks_url = fields.String(
        data_key="MEDMITRA_JWKS_URL",
        load_default=None,
        validate=rules.must_be_key_url,
        metadata={
            "help": "The URL of the issuer's public keys (ES256, RS256), instead of a secret or beside it. If"
            " it is set, every request for cases needs a token. Supabase:"
            " `https://<ref>.supabase.co/auth/v1/.well-known/jwks.json`."
        },
    )
    jwt_audience = fields.String(
        data_key="MEDMITRA_JWT_AUDIENCE",
        load_default="authenticated",
        validate=rules.must_be_bare,
        metadata={"help": "The audience that `aud` of a token must be or contain."},
    )
    jwt_issuer = fields.String(
        data_key="MEDMITRA_JWT_ISSUER",
        load_default=None,
        validate=rules.must_be_bare,
        metadata={
            "help": "The issuer that `iss` of a token must be. Supabase:"
            " `https://<ref>.supabase.co/auth/v1`. If it is not set, `iss` is not checked."
        },
    )
    trust_user_id = boolean(
        "MEDMITRA_TRUST_USER_ID",
        "Says that the proxy checks `user_id`. Without it and without tokens, `serve` listens only on a"
        " loopback address or a Unix socket.",
    )
    etag_source = fields.String(
        data_key="MEDMITRA_ETAG_SOURCE",
        load_default="auto",
        validate=validate.OneOf(
            ("auto", "rows", "body"), error="must be auto, rows or body (row_versions is now called rows)"
        ),
        metadata={
            "help": "The source of the `ETag`: `rows` (Postgres's `xmin`), `body`, or `auto`, which takes"
            " `rows` if `medmitra.cases` is an ordinary table or a simple view of one. With `body`, a 304"
            " saves the transfer but not the query."
        },
    )
    cors_origins = Origins(
        data_key="MEDMITRA_CORS_ORIGINS",
        load_default=(),
        metadata={
            "help": "The origins whose pages can read responses, as a comma-separated list, written as"
            " browsers do: `https://app.example,http://localhost:3000`."
        },
    )
    cors_headers = FieldNames(
        data_key="MEDMITRA_CORS_HEADERS",
        load_default=(),
        metadata={
            "help": "Further header fields that these pages can send, as a comma-separated list:"
            " `traceparent,baggage,x-client-info`. The service ignores them."
        },
    )
    docs = boolean("MEDMITRA_DOCS", "Whether the service has `/`, `/docs` and `/openapi.json`.", default=True)

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_combinations(self, values: dict[str, Any], sent: Mapping[str, str], **_: Any) -> None:
        """Check that no setting contradicts another one or has no effect without it.

        Args:
            values: The valid values by their attribute names in ``Settings``.
            sent: The environment variables that are set.

        Raises:
            ValidationError: Two settings contradict each other, or one has no effect.
        """
        mistakes = find_contradictions(sent, trusts_user_id=bool(values.get("trust_user_id")))
        if mistakes:
            raise ValidationError(mistakes)
