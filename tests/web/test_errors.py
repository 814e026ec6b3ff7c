"""Every error has the body of the contract, with one key, and reveals nothing internal."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest
from flask import Flask, abort
from flask.testing import FlaskClient
from psycopg2.extensions import make_dsn
from werkzeug.exceptions import default_exceptions
from werkzeug.test import TestResponse

from medmitra_cases import blueprint
from medmitra_cases.dao import reader
from medmitra_cases.errors import Fault
from medmitra_cases.web import error_handlers
from medmitra_cases.web.application import RECEIVED_AT
from tests.support import factories
from tests.support.factories import DOCTOR, CasesDatabase, execute
from tests.support.paths import DOCS

URL = "/cases/all_cases"
CASES_URL = f"{URL}?user_id={DOCTOR}"


def detail(response: TestResponse) -> str:
    """The detail of an error; asserts the shape that all errors share."""
    assert response.content_type == "application/json"
    body = response.get_json()
    assert list(body) == ["detail"]
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert "Location" not in response.headers
    return str(body["detail"])


def texts_of_kinds(fault: type[Fault] = Fault) -> set[tuple[str, str]]:
    """Return the kind and the public text of a failure and of its subclasses."""
    return {(fault.kind, fault.public_text)}.union(*map(texts_of_kinds, fault.__subclasses__()))


def test_each_kind_of_failure_is_one_documented_word() -> None:
    operations = (DOCS / "operations.md").read_text()
    table = operations.partition("\n| `error` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \| `([a-z ]+)` \|", table, re.MULTILINE)) == texts_of_kinds()


@contextmanager
def client_of(url: str, wait_seconds: float = 0) -> Iterator[FlaskClient]:
    """A client of a service on the database with this URL."""
    with factories.client_on(url, MEDMITRA_DATABASE_WAIT_SECONDS=str(wait_seconds)) as client:
        yield client


def error_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The log records of failed requests, without those of the start."""
    return [record for record in caplog.records if record.name == error_handlers.__name__]


def assert_500(response: TestResponse, public_text: str, caplog: pytest.LogCaptureFixture) -> str:
    """Assert the documented 500, logged once with its request id; returns the log text."""
    assert response.status_code == 500
    match = re.fullmatch(r"Internal server error: (.+) \(request id ([0-9a-f]{16})\)", detail(response))
    assert match is not None
    assert match[1] == public_text
    (record,) = error_records(caplog)
    assert match[2] in record.getMessage()
    # A database error is logged in one line, an error in the code with its traceback.
    assert (record.exc_info is not None) == (public_text == "unexpected error")
    return caplog.text


@pytest.mark.parametrize("code", sorted(default_exceptions))
def test_every_http_error_has_the_same_body(app: Flask, code: int) -> None:
    app.add_url_rule("/abort", view_func=lambda: abort(code))
    response = app.test_client().get("/abort")
    assert response.status_code == code
    assert detail(response).startswith("Internal server error: ") == (code == 500)


@pytest.mark.parametrize(
    "path",
    [
        "/cases",
        "/cases/",
        "/cases/all_cases/",
        "//cases/all_cases",
        "/cases//all_cases",
        "/static/x",
        "/%00",
    ],
)
def test_an_unknown_path_gets_a_404_and_no_redirect(client: FlaskClient, path: str) -> None:
    response = client.get(path, query_string={"user_id": DOCTOR})
    assert response.status_code == 404
    assert "not found" in detail(response)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO"])
def test_another_method_gets_a_405_with_allow(client: FlaskClient, method: str) -> None:
    response = client.open(CASES_URL, method=method)
    assert response.status_code == 405
    assert {"GET", "HEAD"} <= set(response.headers["Allow"].split(", "))
    assert "method is not allowed" in detail(response)


def test_head_of_an_error_has_no_body(client: FlaskClient) -> None:
    response = client.head(URL)
    assert (response.status_code, response.data) == (400, b"")


def test_an_unreachable_database_gets_a_500(caplog: pytest.LogCaptureFixture) -> None:
    with client_of("postgresql://reader:hunter2@127.0.0.1:1/clinic") as client:
        response = client.get(CASES_URL)
    log = assert_500(response, "database unavailable", caplog)
    assert not re.search(r"127\.0\.0\.1|hunter2|reader|clinic|psycopg2|SELECT", response.text)
    assert "OperationalError" in log
    assert "hunter2" not in log


def test_a_query_that_times_out_gets_a_500(database: CasesDatabase, caplog: pytest.LogCaptureFixture) -> None:
    short_timeout_dsn = make_dsn(database.service_dsn, options="-c statement_timeout=50")
    with closing(psycopg2.connect(database.owner_dsn)) as writer, client_of(short_timeout_dsn) as client:
        execute(writer, f"LOCK TABLE {database.layout.relation} IN ACCESS EXCLUSIVE MODE")
        response = client.get(CASES_URL)
        writer.rollback()
        assert "QueryCanceled: canceling statement due to statement timeout" in assert_500(
            response, "query timed out", caplog
        )
        assert client.get(CASES_URL).status_code == 200


def test_a_request_that_waited_too_long_for_its_turn_gets_a_500(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    received_at = time.monotonic() - blueprint.MAX_QUEUE_SECONDS
    assert client.get(CASES_URL, environ_overrides={RECEIVED_AT: received_at + 5}).status_code == 200
    response = client.get(CASES_URL, environ_overrides={RECEIVED_AT: received_at - 0.1})
    assert_500(response, "overloaded", caplog)


def test_another_database_error_gets_a_500(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    with client_of(empty_database) as client:
        response = client.get(CASES_URL)
    log = assert_500(response, "unexpected database error", caplog)
    assert "medmitra.cases" not in response.text
    assert "UndefinedTable" in log


def test_an_unexpected_exception_gets_a_500(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("John Doe is in SELECT secret")

    monkeypatch.setattr(reader, "fetch_cases", fail)
    response = client.get(CASES_URL)
    assert "RuntimeError: John Doe" in assert_500(response, "unexpected error", caplog)
    assert "John" not in response.text


def test_the_search_text_is_not_logged(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    with closing(psycopg2.connect(empty_database)) as owner:
        owner.autocommit = True
        factories.LAYOUTS["own_table"].create(owner)
        # The error of Postgres quotes the line of the statement that contains the search text.
        execute(owner, "ALTER TABLE medmitra.cases ALTER case_summary TYPE json USING NULL")
    with client_of(empty_database) as client:
        response = client.get(f"{CASES_URL}&search=Zebediah")
    assert "collations are not supported by type json" in assert_500(
        response, "unexpected database error", caplog
    )
    assert "Zebediah" not in caplog.text


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc-DEF_1.2", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("a b", False),
        ("é", False),
        ("a\tb", False),
    ],
)
def test_a_valid_request_id_of_the_proxy_is_kept(sent: str, kept: bool) -> None:
    with client_of("host=127.0.0.1 port=1") as client:
        response = client.get(CASES_URL, headers={"X-Request-ID": sent})
    assert detail(response).endswith(f"(request id {sent})") == kept
