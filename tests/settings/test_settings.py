"""Settings come from the environment. One error names all mistakes, and no text shows a secret."""

import re
from typing import Any

import pytest
from marshmallow import missing

from medmitra_cases import create_app
from medmitra_cases.errors import SettingsError
from medmitra_cases.settings.schema import SettingsSchema
from medmitra_cases.settings.settings import Settings
from tests.support.paths import DOCS
from tests.support.tokens import SECRET

URL = "postgresql://reader:hunter2@db1,db2:5433/clinic?target_session_attrs=any"
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----"
KEYS = "https://x.supabase.co/auth/v1/.well-known/jwks.json"


def mistakes(**environ: str) -> str:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ(environ)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_settings_have_defaults() -> None:
    assert Settings.from_environ({"DATABASE_URL": URL, "PATH": "/bin", "MEDMITRA_LISTEN": ""}) == Settings(
        database_url=URL,
        listen="127.0.0.1:8000",
        reuse_port=False,
        threads=4,
        database_wait_seconds=3.0,
        connection_max_age_seconds=1800,
        keepalive_seconds=75,
        drain_seconds=25.0,
        admin_listen="127.0.0.1:8001",
        log_format="text",
        jwt_secret=None,
        jwt_secret_previous=None,
        jwks_url=None,
        jwt_audience="authenticated",
        jwt_issuer=None,
        trust_user_id=False,
        etag_source="auto",
        cors_origins=(),
        cors_headers=(),
        docs=True,
    )


def test_variables_set_the_settings() -> None:
    settings = Settings.from_environ(
        {
            "DATABASE_URL": "host=/run/postgresql dbname=clinic",
            "MEDMITRA_LISTEN": "[::1]:80",
            "MEDMITRA_REUSE_PORT": "true",
            "MEDMITRA_THREADS": "4",
            "MEDMITRA_DATABASE_WAIT_SECONDS": "0.5",
            "MEDMITRA_CONNECTION_MAX_AGE_SECONDS": "60",
            "MEDMITRA_KEEPALIVE_SECONDS": "10",
            "MEDMITRA_DRAIN_SECONDS": "0.5",
            "MEDMITRA_ADMIN_LISTEN": "off",
            "MEDMITRA_LOG_FORMAT": "json",
            "MEDMITRA_DOCS": "0",
        }
    )
    assert settings.docs is False
    assert (settings.listen, settings.reuse_port, settings.threads) == ("[::1]:80", True, 4)
    assert (settings.database_wait_seconds, settings.keepalive_seconds) == (0.5, 10)
    assert settings.connection_max_age_seconds == 60
    assert (settings.drain_seconds, settings.admin_listen, settings.log_format) == (0.5, None, "json")


def test_variables_set_the_token_settings() -> None:
    shared = Settings.from_environ(
        {
            "DATABASE_URL": URL,
            "MEDMITRA_JWT_SECRET": SECRET,
            "MEDMITRA_JWT_AUDIENCE": "clinic",
            "MEDMITRA_JWT_ISSUER": "https://issuer.example",
            "MEDMITRA_CORS_ORIGINS": "https://app.example , http://localhost:3000,http://[::1]:3000",
        }
    )
    assert (shared.jwt_secret, shared.jwks_url, shared.needs_tokens) == (SECRET, None, True)
    assert (shared.jwt_audience, shared.jwt_issuer) == ("clinic", "https://issuer.example")
    assert shared.cors_origins == ("https://app.example", "http://localhost:3000", "http://[::1]:3000")
    by_url = Settings.from_environ({"DATABASE_URL": URL, "MEDMITRA_JWKS_URL": KEYS})
    assert (by_url.jwt_secret, by_url.jwks_url, by_url.needs_tokens) == (None, KEYS, True)
    assert not Settings.from_environ({"DATABASE_URL": URL, "MEDMITRA_TRUST_USER_ID": "1"}).needs_tokens


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        (
            {"MEDMITRA_JWT_SECRET_PREVIOUS": SECRET, "MEDMITRA_JWKS_URL": KEYS},
            "MEDMITRA_JWT_SECRET_PREVIOUS has no effect without MEDMITRA_JWT_SECRET",
        ),
        (
            {"MEDMITRA_JWT_SECRET": SECRET, "MEDMITRA_TRUST_USER_ID": "true"},
            "MEDMITRA_TRUST_USER_ID cannot be combined with MEDMITRA_JWT_SECRET: the token names the doctor",
        ),
        (
            {"MEDMITRA_JWKS_URL": KEYS, "MEDMITRA_TRUST_USER_ID": "true"},
            "MEDMITRA_TRUST_USER_ID cannot be combined with MEDMITRA_JWKS_URL: the token names the doctor",
        ),
        # An operator who sets these expects that the service verifies tokens.
        (
            {"MEDMITRA_JWT_ISSUER": "https://issuer.example"},
            "MEDMITRA_JWT_ISSUER has no effect without MEDMITRA_JWT_SECRET or MEDMITRA_JWKS_URL",
        ),
        (
            {"MEDMITRA_JWT_AUDIENCE": "clinic"},
            "MEDMITRA_JWT_AUDIENCE has no effect without MEDMITRA_JWT_SECRET or MEDMITRA_JWKS_URL",
        ),
        (
            {"MEDMITRA_CORS_HEADERS": "traceparent"},
            "MEDMITRA_CORS_HEADERS has no effect without MEDMITRA_CORS_ORIGINS",
        ),
        *(
            (
                {"MEDMITRA_CORS_ORIGINS": "https://app.example", "MEDMITRA_CORS_HEADERS": value},
                "MEDMITRA_CORS_HEADERS must be a comma-separated list of header fields,"
                " such as traceparent,baggage,x-client-info",
            )
            for value in ("*", "a b", "a,,b", "a,", "x:y", "traceparent;baggage", "x" * 65)
        ),
        ({"MEDMITRA_TRUST_USER_ID": "yes!"}, "MEDMITRA_TRUST_USER_ID must be true or false"),
        ({"MEDMITRA_JWT_SECRET": "x" * 31}, "MEDMITRA_JWT_SECRET must be at least 32 bytes long"),
        (
            {"MEDMITRA_JWT_SECRET": PUBLIC_KEY},
            "MEDMITRA_JWT_SECRET is a public key or a certificate, not a secret",
        ),
    ],
)
def test_misleading_security_settings_are_rejected(variables: dict[str, str], error: str) -> None:
    assert mistakes(DATABASE_URL=URL, **variables) == error


def test_a_secret_is_measured_in_bytes() -> None:
    Settings.from_environ({"DATABASE_URL": URL, "MEDMITRA_JWT_SECRET": "é" * 16})


@pytest.mark.parametrize(
    "url",
    [
        "https://x.supabase.co/auth/v1/.well-known/jwks.json",
        "https://keys.example:8443/k?x=1",
        "HTTPS://keys.example/keys",
        "HTTP://127.0.0.1:9999/keys",
        "http://127.0.0.1:9999/keys",
        "http://localhost/keys",
        "http://[::1]:1/keys",
    ],
)
def test_https_and_loopback_key_urls_are_accepted(url: str) -> None:
    assert Settings.from_environ({"DATABASE_URL": URL, "MEDMITRA_JWKS_URL": url}).jwks_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://keys.example/keys",
        "HTTP://keys.example/keys",
        "http://127.0.0.1.evil.example/keys",
        "http://10.0.0.1/keys",
        "ftp://keys.example/keys",
        "file:///etc/keys",
        "keys.example",
        "https://",
        "https:///keys",
        "https://user:hunter2@keys.example/keys",
        "https://keys.example:x/keys",
        "https://keys.example:0/keys",
        "https://[::1/keys",
        "https://keys.example/a b",
        "https://keys.example/é",
    ],
)
def test_other_key_urls_are_rejected(url: str) -> None:
    text = mistakes(DATABASE_URL=URL, MEDMITRA_JWKS_URL=url)
    assert text == "MEDMITRA_JWKS_URL must be an https:// URL (http:// only for a loopback address)"


@pytest.mark.parametrize(
    "origins",
    [
        "*",
        "null",
        "app.example",
        "https://app.example/",
        "https://app.example/page",
        "https://*.app.example",
        "https://App.example",
        "https://user@app.example",
        "https://app.example:443",
        "http://app.example:80",
        "https://a.example,",
        "https://a.example,,https://b.example",
        "https://a.example https://b.example",
    ],
)
def test_invalid_origins_are_rejected(origins: str) -> None:
    text = mistakes(DATABASE_URL=URL, MEDMITRA_CORS_ORIGINS=origins)
    assert text.startswith("MEDMITRA_CORS_ORIGINS must be a comma-separated list of origins")


def test_one_error_names_all_mistakes() -> None:
    text = mistakes(MEDMITRA_LISTEN="8000", MEDMITRA_THREADS="many", MEDMITRA_REUSE_PORT="perhaps")
    assert text.split("; ") == [
        "DATABASE_URL is not set: a libpq URI or key=value string"
        " (no database at hand? `medmitra-cases demo` brings one)",
        "MEDMITRA_LISTEN must be HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000",
        "MEDMITRA_REUSE_PORT must be true or false",
        "MEDMITRA_THREADS must be a number",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40ss%2Fw%3Ard@db1:5432,db2,[::1]:5433/clinic?sslmode=require",
        "postgresql://%2Frun%2Fpg@15:5432/clinic",
        "postgresql:///clinic",
        "host=/run/a@b port=' 5432' password='p@ss/w:rd'",
        "service=clinic",
    ],
)
def test_database_url_accepts_every_libpq_format(url: str) -> None:
    assert Settings.from_environ({"DATABASE_URL": url}).database_url == url


def test_other_variables_are_ignored() -> None:
    # Kubernetes sets such a variable for a Service that is named medmitra-cases.
    Settings.from_environ({"DATABASE_URL": URL, "MEDMITRA_CASES_PORT": "tcp://10.0.0.1:80"})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hun/ter2@db/clinic",
        "postgresql://u:hun@ter2@db/clinic",
        "postgresql://u:12/34@db/clinic",
        "postgresql://u:p@ss/w0rd@localhost/clinic",
        "postgresql://u:/hunter2@db/clinic",
    ],
)
def test_the_error_shows_no_password_with_reserved_characters(url: str) -> None:
    assert mistakes(DATABASE_URL=url).startswith("DATABASE_URL is a URI that cannot be parsed")


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@[bad/x", "hunter2", "host=x hunter2", "mysql://u:hunter2@x/y", "\udcff"]
)
def test_the_error_does_not_show_an_invalid_database_url(url: str) -> None:
    assert mistakes(DATABASE_URL=url) == "DATABASE_URL is neither a libpq URI nor a key=value string"


@pytest.mark.parametrize("name", ["pgbouncer", "connection_limit", "schema", "supa", "prepareThreshold"])
@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@db/clinic?sslmode=require&{}=1", "host=db password=hunter2 {}=1"]
)
def test_a_parameter_of_other_drivers_is_refused_by_name(name: str, url: str) -> None:
    assert mistakes(DATABASE_URL=url.format(name)) == (
        f"DATABASE_URL has the parameter {name}, which other drivers read and libpq does not know: remove it;"
        " the service needs no parameter for a connection pooler"
    )


def test_an_unknown_parameter_is_not_repeated() -> None:
    # The slash ends the host: libpq takes the rest of the password for the name of a parameter.
    error = mistakes(DATABASE_URL="postgresql://u:secret/pass?hunter2=x@db/clinic")
    assert error.startswith("DATABASE_URL has a parameter that libpq does not know")
    assert "hunter2" not in error


@pytest.mark.parametrize(
    "listen", ["8000", "x", ":8000", "h:", "h:65536", "h:80/", "::1:80", "a b:80", "h:٨٠", "h:80\n"]
)
def test_invalid_listen_addresses_are_rejected(listen: str) -> None:
    assert "MEDMITRA_LISTEN must be HOST:PORT" in mistakes(DATABASE_URL=URL, MEDMITRA_LISTEN=listen)


@pytest.mark.parametrize("value", ["-1", "61", "nan", "inf", "1s", "1,5"])
def test_invalid_database_waits_are_rejected(value: str) -> None:
    text = mistakes(DATABASE_URL=URL, MEDMITRA_DATABASE_WAIT_SECONDS=value)
    assert re.fullmatch("MEDMITRA_DATABASE_WAIT_SECONDS must be (a number|between 0 and 60)", text)


@pytest.mark.parametrize("value", ["-0.1", "3601", "nan", "inf", "25s"])
def test_invalid_drain_times_are_rejected(value: str) -> None:
    text = mistakes(DATABASE_URL=URL, MEDMITRA_DRAIN_SECONDS=value)
    assert re.fullmatch("MEDMITRA_DRAIN_SECONDS must be (a number|between 0 and 3600)", text)


@pytest.mark.parametrize("listen", ["8001", "OFF", "none", ":8001", "h:65536", "off:1x", "127.0.0.1:8001\n"])
def test_invalid_admin_addresses_are_rejected(listen: str) -> None:
    text = mistakes(DATABASE_URL=URL, MEDMITRA_ADMIN_LISTEN=listen)
    assert text.startswith("MEDMITRA_ADMIN_LISTEN must be ")
    assert "HOST:PORT" in text


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:8001", "0.0.0.0:8001", "localhost:9100"])
def test_valid_admin_addresses_are_accepted(listen: str) -> None:
    settings = Settings.from_environ({"DATABASE_URL": URL, "MEDMITRA_ADMIN_LISTEN": listen})
    assert settings.admin_listen == listen


@pytest.mark.parametrize(("source", "row_versions"), [("auto", None), ("rows", True), ("body", False)])
def test_sources_of_tags(source: str, row_versions: bool | None) -> None:
    settings = Settings.from_environ({"DATABASE_URL": URL, "MEDMITRA_ETAG_SOURCE": source})
    assert settings.row_versions is row_versions


@pytest.mark.parametrize("source", ["row_versions", "xmin", "Auto", "rows "])
def test_bad_sources_of_tags(source: str) -> None:
    """The old name of a value is refused with the new one."""
    text = mistakes(DATABASE_URL=URL, MEDMITRA_ETAG_SOURCE=source)
    assert text == "MEDMITRA_ETAG_SOURCE must be auto, rows or body (row_versions is now called rows)"


@pytest.mark.parametrize("log_format", ["xml", "JSON", " text", "text,json"])
def test_invalid_log_formats_are_rejected(log_format: str) -> None:
    text = mistakes(DATABASE_URL=URL, MEDMITRA_LOG_FORMAT=log_format)
    assert text == "MEDMITRA_LOG_FORMAT must be text or json"


@pytest.mark.parametrize("value", ["0", "3601", "1.5"])
def test_invalid_keepalives_are_rejected(value: str) -> None:
    text = mistakes(DATABASE_URL=URL, MEDMITRA_KEEPALIVE_SECONDS=value)
    assert re.fullmatch("MEDMITRA_KEEPALIVE_SECONDS must be (a number|between 1 and 3600)", text)


@pytest.mark.parametrize("value", ["0", "257", "1.5", "1e2"])
def test_invalid_thread_counts_are_rejected(value: str) -> None:
    text = mistakes(DATABASE_URL=URL, MEDMITRA_THREADS=value)
    assert re.fullmatch("MEDMITRA_THREADS must be (a number|between 1 and 256)", text)


def test_create_app_reads_the_environment_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(SettingsError):
        create_app()
    monkeypatch.setenv("DATABASE_URL", URL)
    assert create_app().test_client().get("/cases/all_cases").status_code == 400


def test_repr_shows_no_secret() -> None:
    secrets = {"MEDMITRA_JWT_SECRET": SECRET, "MEDMITRA_JWT_SECRET_PREVIOUS": SECRET}
    text = repr(Settings.from_environ({"DATABASE_URL": URL, **secrets}))
    assert "hunter2" not in text
    assert SECRET not in text


def documented_default(value: Any) -> str:
    if value is missing:
        return "required"
    return "not set" if value in (None, ()) else f"`{str(value).lower()}`"


def test_the_settings_page_lists_every_setting_with_its_default() -> None:
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (.+?) \| (.+) \|$", (DOCS / "settings.md").read_text(), re.MULTILINE
    )
    assert rows == [
        (
            field.data_key,
            documented_default(field.load_default),
            field.metadata["help"],
        )
        for field in SettingsSchema().fields.values()
    ]
