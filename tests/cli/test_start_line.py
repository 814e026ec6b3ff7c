"""The line that serve prints at its start: addresses, requests, database and access, but no secret."""

import re
import signal
import subprocess

import pytest

from medmitra_cases.cli.start_line import start_line
from tests.support.factories import settings
from tests.support.processes import COMMAND, environment
from tests.support.tokens import SECRET

URL = "postgresql://reader:hunter2@db.example/clinic?application_name=s3cr3t"


@pytest.fixture(autouse=True)
def _without_libpq_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE", "HOST", "HOSTADDR", "PORT", "DATABASE", "USER"):
        monkeypatch.delenv(f"PG{name}", raising=False)


def line(url: str = URL, **variables: str) -> str:
    text = start_line(settings(url, **variables), ["http://127.0.0.1:8000"])
    assert "\n" not in text
    assert "hunter2" not in text
    return text


def database(url: str) -> str:
    return line(url).partition(", from ")[2].partition(", to ")[0]


def test_the_line_names_address_requests_database_and_access() -> None:
    assert line(MEDMITRA_JWT_SECRET=SECRET) == (
        "Serving cases on http://127.0.0.1:8000 with 4 requests at a time,"
        " from clinic at db.example:5432, to each doctor by token (HS256)"
    )


def test_the_line_lists_several_addresses() -> None:
    urls = ["http://127.0.0.1:8000", "http://[::1]:8000"]
    text = start_line(settings(URL, MEDMITRA_THREADS="1"), urls)
    assert text.startswith(
        "Serving cases on http://127.0.0.1:8000 and http://[::1]:8000 with 1 request at a time, from "
    )


@pytest.mark.parametrize(
    ("variables", "access"),
    [
        ({}, "any client on this machine that sends a user_id"),
        ({"MEDMITRA_TRUST_USER_ID": "1"}, "any client that the reverse proxy forwards"),
        ({"MEDMITRA_JWT_SECRET": SECRET}, "each doctor by token (HS256)"),
        (
            {"MEDMITRA_JWKS_URL": "https://x.supabase.co/auth/v1/jwks.json"},
            "each doctor by token (keys of x.supabase.co)",
        ),
        (
            {"MEDMITRA_JWT_SECRET": SECRET, "MEDMITRA_JWKS_URL": "https://x.supabase.co/auth/v1/jwks.json"},
            "each doctor by token (HS256, keys of x.supabase.co)",
        ),
        (
            {"MEDMITRA_JWT_SECRET": SECRET, "MEDMITRA_JWT_SECRET_PREVIOUS": SECRET[::-1]},
            "each doctor by token (HS256 with two secrets)",
        ),
    ],
)
def test_the_line_names_who_has_access(variables: dict[str, str], access: str) -> None:
    assert line(**variables).endswith(f", to {access}")
    assert SECRET not in line(**variables)
    assert SECRET[::-1] not in line(**variables)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, "clinic at db.example:5432"),
        ("host=db.example port=6432 dbname=clinic password=hunter2", "clinic at db.example:6432"),
        ("postgresql://u:hunter2@a,b:5433/clinic", "clinic at a:5432, b:5433"),
        ("host=a,b port=6432 dbname=clinic", "clinic at a:6432, b:6432"),
        ("postgresql://u:hunter2@[::1]:5433/clinic", "clinic at [::1]:5433"),
        ("host=db.example hostaddr=192.0.2.1 dbname=clinic", "clinic at 192.0.2.1:5432"),
        ("host=/run/postgresql dbname=clinic", "clinic at /run/postgresql/.s.PGSQL.5432"),
        ("postgresql:///clinic", "clinic at the local socket .s.PGSQL.5432"),
        ("host=db.example user=reader password=hunter2", "the default database at db.example:5432"),
        ("host=reader:hunter2@db.example dbname=clinic", "clinic at db.example:5432"),
        ("host=@abstract dbname=clinic", "clinic at @abstract/.s.PGSQL.5432"),
        ("postgresql://db.example/clinic%0Aand%1B[31m", "clinic?and?[31m at db.example:5432"),
        ("host=db.example", "the default database at db.example:5432"),
        ("service=clinic password=hunter2", "the database of the service clinic"),
    ],
)
def test_the_line_names_the_database(url: str, expected: str) -> None:
    assert database(url) == expected


def test_libpq_variables_complete_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGPORT", "6432")
    monkeypatch.setenv("PGDATABASE", "clinic")
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    assert database("postgresql://") == "clinic at db.example:6432"
    assert database("host=other port=1 dbname=theirs") == "theirs at other:1"


def test_serve_prints_only_this_line_on_stdout() -> None:
    command = (str(COMMAND), "serve", "--listen", "127.0.0.1:0")
    with subprocess.Popen(
        command,
        env=environment(DATABASE_URL=URL),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
    assert process.returncode == 0
    assert re.sub(r":\d+ with", ":8000 with", first) == f"{line()}\n"
