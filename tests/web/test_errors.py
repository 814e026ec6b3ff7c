"""Every error has the contract's one-key body, and says nothing that a stranger could use."""

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
from medmitra_cases.web import error_handlers
from medmitra_cases.web.application import RECEIVED_AT
from tests.support import factories
from tests.support.factories import DOCTOR, CasesDatabase, case, execute

URL = "/cases/all_cases"
ASKED = f"{URL}?user_id={DOCTOR}"


def detail(response: TestResponse) -> str:
    """The detail of an error; asserts the shape that all errors share."""
    assert response.content_type == "application/json"
    body = response.get_json()
    assert list(body) == ["detail"]
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert "Location" not in response.headers
    return str(body["detail"])


@contextmanager
def client_of(url: str, wait_seconds: float = 0) -> Iterator[FlaskClient]:
    """A client of a service on the database with this URL."""
    with factories.client_on(url, MEDMITRA_DATABASE_WAIT_SECONDS=str(wait_seconds)) as client:
        yield client


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged of requests, apart from what was said at start."""
    return [record for record in caplog.records if record.name == error_handlers.__name__]


def assert_fault(response: TestResponse, phrase: str, caplog: pytest.LogCaptureFixture) -> str:
    """Assert the documented 500, logged once with its id; returns what was logged."""
    assert response.status_code == 500
    form = re.fullmatch(r"Internal server error: (.+) \(request id ([0-9a-f]{16})\)", detail(response))
    assert form is not None
    assert form[1] == phrase
    (record,) = logged(caplog)
    assert form[2] in record.getMessage()
    # A database that fails says why in one line; a mistake of ours needs more.
    assert (record.exc_info is not None) == (phrase == "unexpected error")
    return caplog.text


@pytest.mark.parametrize("code", sorted(default_exceptions))
def test_every_http_error_has_the_one_body(app: Flask, code: int) -> None:
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
def test_unknown_paths_are_404_and_never_redirect(client: FlaskClient, path: str) -> None:
    response = client.get(path, query_string={"user_id": DOCTOR})
    assert response.status_code == 404
    assert "not found" in detail(response)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO"])
def test_other_methods_are_405_with_allow(client: FlaskClient, method: str) -> None:
    response = client.open(ASKED, method=method)
    assert response.status_code == 405
    assert {"GET", "HEAD"} <= set(response.headers["Allow"].split(", "))
    assert "method is not allowed" in detail(response)


def test_head_of_an_error_has_no_body(client: FlaskClient) -> None:
    response = client.head(URL)
    assert (response.status_code, response.data) == (400, b"")


def test_database_down(caplog: pytest.LogCaptureFixture) -> None:
    with client_of("postgresql://reader:hunter2@127.0.0.1:1/clinic") as client:
        response = client.get(ASKED)
    log = assert_fault(response, "database unavailable", caplog)
    assert not re.search(r"127\.0\.0\.1|hunter2|reader|clinic|psycopg2|SELECT", response.text)
    assert "OperationalError" in log
    assert "hunter2" not in log


def test_query_timed_out(database: CasesDatabase, caplog: pytest.LogCaptureFixture) -> None:
    hasty = make_dsn(database.service_dsn, options="-c statement_timeout=50")
    with closing(psycopg2.connect(database.owner_dsn)) as writer, client_of(hasty) as client:
        execute(writer, f"LOCK TABLE {database.layout.relation} IN ACCESS EXCLUSIVE MODE")
        response = client.get(ASKED)
        writer.rollback()
        assert "QueryCanceled: canceling statement due to statement timeout" in assert_fault(
            response, "query timed out", caplog
        )
        assert client.get(ASKED).status_code == 200


def test_a_request_that_waited_too_long_for_a_thread(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    came_at = time.monotonic() - blueprint.MAX_QUEUE_SECONDS
    assert client.get(ASKED, environ_overrides={RECEIVED_AT: came_at + 5}).status_code == 200
    response = client.get(ASKED, environ_overrides={RECEIVED_AT: came_at - 0.1})
    assert_fault(response, "overloaded", caplog)


def test_other_database_errors(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    with client_of(empty_database) as client:
        response = client.get(ASKED)
    log = assert_fault(response, "unexpected database error", caplog)
    assert "medmitra.cases" not in response.text
    assert "UndefinedTable" in log


def test_unforeseen_exceptions(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("John Doe is in SELECT secret")

    monkeypatch.setattr(reader, "fetch_cases", fail)
    response = client.get(ASKED)
    assert "RuntimeError: John Doe" in assert_fault(response, "unexpected error", caplog)
    assert "John" not in response.text


def test_data_the_database_refuses_is_400(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    with closing(psycopg2.connect(empty_database)) as owner:
        owner.autocommit = True
        factories.LAYOUTS["own_table"].create(owner)
        execute(owner, "ALTER TABLE medmitra.cases ADD COLUMN note text")
        columns = case(patient_name="Jane Doe")
        execute(
            owner,
            "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender)"
            " VALUES (%s, %s, 1, '')",
            [columns["user_id"], columns["patient_name"]],
        )
        # A stand-in for data that only the database can find fault with: its error quotes the patient's name.
        execute(owner, "ALTER TABLE medmitra.cases RENAME TO kept")
        execute(
            owner,
            "CREATE VIEW medmitra.cases AS SELECT id, case_id, user_id, patient_name,"
            " patient_name::integer AS patient_age, patient_gender, case_summary, status,"
            " created_at, updated_at, xmin FROM medmitra.kept",
        )
    with client_of(empty_database) as client:
        response = client.get(ASKED)
    assert response.status_code == 400
    assert detail(response) == "the database refused the data of this request"
    (record,) = logged(caplog)
    assert "22P02" in record.getMessage()
    assert "Jane" not in caplog.text


def test_what_was_searched_for_is_not_logged(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    with closing(psycopg2.connect(empty_database)) as owner:
        owner.autocommit = True
        factories.LAYOUTS["own_table"].create(owner)
        # Postgres finds fault with the line of the statement in which the text is, and quotes it.
        execute(owner, "ALTER TABLE medmitra.cases ALTER case_summary TYPE json USING NULL")
    with client_of(empty_database) as client:
        response = client.get(f"{ASKED}&search=Zebediah")
    assert "function lower(json) does not exist" in assert_fault(
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
def test_the_proxys_request_id_is_kept_if_sane(sent: str, kept: bool) -> None:
    with client_of("host=127.0.0.1 port=1") as client:
        response = client.get(ASKED, headers={"X-Request-ID": sent})
    assert detail(response).endswith(f"(request id {sent})") == kept
