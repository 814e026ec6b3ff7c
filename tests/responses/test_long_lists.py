"""Long lists are streamed while they are read: complete and from one snapshot, or visibly incomplete."""

import json
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from medmitra_cases.dao import reader
from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.statements import BoundQuery
from medmitra_cases.dao.whole import fetch_cases
from medmitra_cases.database import Database
from medmitra_cases.errors import BrokenOff, DataRefused
from medmitra_cases.models import CaseQuery
from medmitra_cases.responses import LIMITS, cases
from medmitra_cases.schemas.case import CaseSchema
from tests.support.factories import DOCTOR, KEYS, SESSIONS, CasesDatabase, case, client_on, execute, in_json
from tests.support.processes import wait_until

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"
BOUND = BoundQuery(CaseQuery(DOCTOR), DOCTOR, row_versions=True)


@pytest.fixture(autouse=True)
def _stream_short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "WHOLE_CASES", 20)
    monkeypatch.setattr(cases, "CHUNK_CASES", 10)


@pytest.fixture(autouse=True)
def _wait_for_old_sessions(database: CasesDatabase) -> None:
    """Wait until the sessions of the previous test have ended, because this test counts its own."""
    wait_until(lambda: not session_states(database))


def add(database: CasesDatabase, count: int) -> None:
    """Insert this many cases of ``DOCTOR``, mixed with as many of another doctor."""
    database.add_many([DOCTOR, DOCTOR[:-1] + "7"], 2 * count)


def stored(database: CasesDatabase) -> list[dict[str, Any]]:
    """``DOCTOR``'s cases in the JSON of the contract, read by the owner of the database."""
    columns = ", ".join(database.layout.owner_column if key == "user_id" else key for key in KEYS)
    rows = execute(
        database.owner,
        f"SELECT {columns} FROM {database.layout.relation} WHERE {database.layout.owner_column} = %s"
        " ORDER BY id",
        [DOCTOR],
    )
    return [in_json(dict(zip(KEYS, row, strict=True))) for row in rows]


def session_states(database: CasesDatabase) -> list[str]:
    """The states of the service's sessions."""
    return [state for (state,) in execute(database.owner, f"SELECT state {SESSIONS}")]


def start_stream(client: FlaskClient) -> tuple[TestResponse, Iterator[bytes]]:
    """Send a request; returns the response and its chunks, none of them read yet."""
    response = client.get(CASES_URL)
    chunks = response.iter_encoded()
    return response, iter(chunks)


@pytest.mark.parametrize("count", [19, 20, 21, 29, 30, 31, 95])
def test_a_list_of_any_length_is_complete(client: FlaskClient, database: CasesDatabase, count: int) -> None:
    add(database, count)
    response = client.get(CASES_URL)
    assert response.get_json() == {"cases": stored(database)}
    assert len(response.get_json()["cases"]) == count
    assert ("Content-Length" in response.headers) == (count <= 20)
    assert response.data == json.dumps(response.get_json(), separators=(",", ":")).encode()
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert response.content_type == "application/json"
    assert session_states(database) == ["idle"]


def test_a_list_comes_from_one_snapshot(client: FlaskClient, database: CasesDatabase) -> None:
    add(database, 50)
    before = stored(database)
    _, chunks = start_stream(client)
    received = [next(chunks)]
    execute(database.owner, f"UPDATE {database.layout.relation} SET status = 'failed'")
    execute(database.owner, f"DELETE FROM {database.layout.relation} WHERE id % 3 = 0")
    add(database, 5)
    assert json.loads(b"".join([*received, *chunks])) == {"cases": before}


def test_the_response_begins_before_all_rows_are_read(client: FlaskClient, database: CasesDatabase) -> None:
    add(database, 50)
    response, chunks = start_stream(client)
    first = next(chunks)
    assert first.startswith(b'{"cases":[{"case_id":"')
    assert first.count(b'"case_id"') == 10
    assert session_states(database) == ["idle in transaction"]
    response.close()


def test_a_closed_response_releases_its_database_connection(
    client: FlaskClient, database: CasesDatabase
) -> None:
    add(database, 50)
    for _ in range(2):
        response, chunks = start_stream(client)
        next(chunks)
        response.close()
        assert session_states(database) == ["idle"]
    assert len(client.get(CASES_URL).get_json()["cases"]) == 50


def test_head_of_a_long_list_has_the_headers_of_get(client: FlaskClient, database: CasesDatabase) -> None:
    add(database, 50)
    headers = {"X-Request-ID": "the-same"}
    with client.head(CASES_URL, headers=headers) as head:
        assert (head.status_code, head.data) == (200, b"")
    with client.get(CASES_URL, headers=headers) as response:
        assert dict(head.headers) == dict(response.headers)
    assert session_states(database) == ["idle"]


class Full:
    """The limits of a server whose clients are too slow for one more body in memory."""

    streams = 0

    def has_room(self, _size: int) -> bool:
        return False

    def begin_stream(self) -> None:
        self.streams += 1

    def end_stream(self) -> None:
        self.streams -= 1


@pytest.mark.parametrize("etag_source", ["rows", "body"])
def test_a_list_for_which_the_server_has_no_room_is_a_stream_with_the_same_tag(
    database: CasesDatabase, etag_source: str
) -> None:
    database.add(*(case() for _ in range(3)))
    limits = Full()
    with client_on(database.service_dsn, MEDMITRA_ETAG_SOURCE=etag_source) as client:
        whole = client.get(CASES_URL)
        stream = client.get(CASES_URL, environ_overrides={LIMITS: limits})
        assert "Content-Length" in whole.headers
        assert "Content-Length" not in stream.headers
        assert (stream.status_code, stream.data, stream.headers["ETag"]) == (
            *(200, whole.data),
            whole.headers["ETag"],
        )
    assert limits.streams == 0


def test_an_interrupted_list_is_not_json(
    client: FlaskClient, database: CasesDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    add(database, 50)
    response = client.get(CASES_URL, headers={"X-Request-ID": "nightshift-1"})
    chunks = iter(response.iter_encoded())
    received = next(chunks)
    database.terminate_sessions()
    with pytest.raises(BrokenOff):
        received += b"".join(chunks)
    response.close()
    with pytest.raises(json.JSONDecodeError):
        json.loads(received)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert message.startswith("request nightshift-1 broken off: database unavailable (OperationalError: ")
    assert len(client.get(CASES_URL).get_json()["cases"]) == 50
    assert session_states(database) == ["idle"]


def test_the_error_of_an_interrupted_list_has_no_patient_data(
    client: FlaskClient,
    database: CasesDatabase,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class RefusedBatches(CaseBatches):
        count = 0

        def __next__(self) -> Any:
            self.count += 1
            if self.count == 2:
                raise DataRefused("22P02") from ValueError(
                    'invalid input syntax for type integer: "John Doe"'
                )
            return super().__next__()

    add(database, 50)
    monkeypatch.setattr(reader, "CaseBatches", RefusedBatches)
    _, chunks = start_stream(client)
    next(chunks)
    with pytest.raises(BrokenOff) as raised:
        next(chunks)
    logged = caplog.text + "".join(traceback.format_exception(raised.value))  # the server logs this
    assert "the database refused the data of this request (SQLSTATE 22P02)" in logged
    assert "John Doe" not in logged
    assert session_states(database) == ["idle"]


def test_a_list_that_cannot_be_serialized_gets_a_500(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, 50)
    monkeypatch.setattr(CaseSchema, "dump_rows", lambda *_: 1 / 0)
    response = client.get(CASES_URL)
    assert response.status_code == 500
    assert response.get_json()["detail"].startswith("Internal server error: unexpected error (request id ")
    assert session_states(database) == ["idle"]


def test_a_batch_that_cannot_be_decoded_ends_its_transaction(
    service_database: Database, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, 50)
    batches = service_database.read(0, CaseBatches, BOUND, 10)
    monkeypatch.setattr(
        "medmitra_cases.dao.batches.CaseBatches._size", property(lambda _: 1 / 0), raising=False
    )
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert session_states(database) == ["idle"]


def test_a_lost_connection_is_replaced_before_a_list_begins(
    service_database: Database, database: CasesDatabase
) -> None:
    add(database, 50)
    service_database.read(0, CaseBatches, BOUND, 10).close()
    database.terminate_sessions()
    batches = service_database.read(0, CaseBatches, BOUND, 10)
    assert [len(batch.rows) for batch in batches] == [10] * 5
    batches.close()
    assert session_states(database) == ["idle"]


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
def test_a_list_whose_query_fails_gets_a_500(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "fetch_cases", lambda *_: None)  # None means too many cases
    execute(database.owner, "ALTER TABLE medmitra.cases RENAME COLUMN status TO state")
    try:
        response = client.get(CASES_URL)
    finally:
        execute(database.owner, "ALTER TABLE medmitra.cases RENAME COLUMN state TO status")
    assert response.status_code == 500
    assert response.get_json()["detail"].startswith("Internal server error: unexpected database error")
    assert session_states(database) == ["idle"]


def test_a_list_whose_first_rows_cannot_be_read_gets_a_500(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TerminatedBatches(CaseBatches):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            database.terminate_sessions()

    add(database, 50)
    monkeypatch.setattr(reader, "CaseBatches", TerminatedBatches)
    response = client.get(CASES_URL)
    assert response.status_code == 500
    assert response.get_json()["detail"].startswith("Internal server error: database unavailable")


def test_a_list_leaves_out_cases_deleted_before_it_begins(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, 50)

    def fetch_then_delete(*args: Any, **kwargs: Any) -> Any:
        fetched = fetch_cases(*args, **kwargs)
        database.clear()
        return fetched

    monkeypatch.setattr(reader, "fetch_cases", fetch_then_delete)
    assert client.get(CASES_URL).data == b'{"cases":[]}'


def test_a_response_closed_late_does_not_disturb_the_next_one(
    client: FlaskClient, database: CasesDatabase
) -> None:
    add(database, 50)
    first, chunks = start_stream(client)
    b"".join(chunks)
    second, chunks = start_stream(client)
    received = next(chunks)
    first.close()
    assert len(json.loads(received + b"".join(chunks))["cases"]) == 50
    second.close()
