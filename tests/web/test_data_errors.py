"""Data that the database refuses: a 400 if the request itself sent it, a 500 if it is stored."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask.testing import FlaskClient
from psycopg2.extensions import connection as Connection

from medmitra_cases.database import connect
from medmitra_cases.responses import cases
from medmitra_cases.testing.postgres import new_database
from medmitra_cases.web import error_handlers
from tests.support.factories import DOCTOR, LAYOUTS, client_on, execute

PATH = "/cases/all_cases"
REFUSED = {"detail": "the database refused the data of this request"}
ADD = (
    "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender) VALUES (%s, {}, 34, '')"
)
# One byte that is no text in UTF-8, and one that stands for no character in WINDOWS-1252.
BAD_NAME = {"SQL_ASCII": "convert_from('\\xe9', 'SQL_ASCII')", "WIN1252": "convert_from('\\x81', 'WIN1252')"}


@contextmanager
def serving(server_dsn: str, encoding: str) -> Iterator[tuple[Connection, FlaskClient]]:
    """The owner's connection to a database with this encoding, and a client of the service on it."""
    options = f"TEMPLATE template0 ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'"
    with new_database(server_dsn, options=options) as dsn:
        owner = connect(dsn)
        LAYOUTS["own_table"].create(owner)
        with client_on(dsn) as client:
            yield owner, client
        owner.close()


@pytest.fixture(params=["whole", "in pieces"])
def _lists(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in pieces":
        monkeypatch.setattr(cases, "WHOLE_CASES", 1)
        monkeypatch.setattr(cases, "CHUNK_CASES", 1)


def log_of(caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """The level and the text of the one line about a request."""
    (record,) = (record for record in caplog.records if record.name == error_handlers.__name__)
    return record.levelno, record.getMessage()


@pytest.mark.usefixtures("_lists")
@pytest.mark.parametrize(
    "sent", [{}, {"limit": "5"}, {"search": "a"}, {"search": "é"}, {"sort_by": "patient_name"}]
)
@pytest.mark.parametrize("encoding", BAD_NAME)
def test_stored_data_is_not_blamed_on_the_request(
    server_dsn: str, encoding: str, sent: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(server_dsn, encoding) as (owner, client):
        for name in (f"'éa' || {BAD_NAME[encoding]}", "'éb a'", "'éc a'"):
            execute(owner, ADD.format(name), [DOCTOR])
        response = client.get(PATH, query_string={"user_id": DOCTOR, **sent})
    assert response.status_code == 500
    assert response.get_json()["detail"].startswith(
        "Internal server error: unexpected database error (request id "
    )
    level, text = log_of(caplog)
    assert level == logging.ERROR
    assert {"SQL_ASCII": "22021", "WIN1252": "22P05"}[encoding] in text
    assert "0x" not in text


@pytest.mark.usefixtures("_lists")
def test_a_value_that_a_view_cannot_convert(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    owner = connect(empty_database)
    LAYOUTS["own_table"].create(owner)
    for name in ("'Jane Doe'", "'Ravi'"):
        execute(owner, ADD.format(name), [DOCTOR])
    execute(
        owner,
        "ALTER TABLE medmitra.cases RENAME TO kept;"
        "CREATE VIEW medmitra.cases AS SELECT id, case_id, user_id, patient_name,"
        " patient_name::integer AS patient_age, patient_gender, case_summary, status,"
        " created_at, updated_at, xmin FROM medmitra.kept",
    )
    owner.close()
    with client_on(empty_database) as client:
        assert client.get(PATH, query_string={"user_id": DOCTOR}).status_code == 500
    assert log_of(caplog)[0] == logging.ERROR
    assert "22P02" in log_of(caplog)[1]
    assert "Jane" not in caplog.text


@pytest.mark.parametrize("also", [{}, {"limit": "5"}, {"sort_by": "status"}])
@pytest.mark.parametrize("name", ["search", "status", "gender"])
def test_a_character_that_the_database_cannot_store_is_a_400(
    server_dsn: str, name: str, also: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(server_dsn, "LATIN1") as (owner, client):
        execute(owner, ADD.format("'René'"), [DOCTOR])
        for value, found in (("本", None), ("René", int(name == "search"))):
            response = client.get(PATH, query_string={"user_id": DOCTOR, name: value, **also})
            if found is None:
                assert (response.status_code, response.get_json()) == (400, REFUSED)
            else:
                assert len(response.get_json()["cases"]) == found
    level, text = log_of(caplog)
    assert level == logging.WARNING
    assert "22P05" in text
    assert "本" not in text
