"""Lists too long to hold at once are sent as they are read: whole, from one snapshot, or visibly broken."""

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
from medmitra_cases.dao.fetch import fetch_cases
from medmitra_cases.dao.statements import BoundQuery
from medmitra_cases.database import Database
from medmitra_cases.errors import BrokenOff, DataRefused
from medmitra_cases.models import CaseQuery
from medmitra_cases.responses import cases
from medmitra_cases.schemas.case import CaseSchema
from tests.support.factories import DOCTOR, KEYS, CasesDatabase, execute, in_json
from tests.support.processes import wait_until

ASKED = f"/cases/all_cases?user_id={DOCTOR}"
BOUND = BoundQuery(CaseQuery(DOCTOR), DOCTOR, row_versions=True)
SESSIONS = "FROM pg_stat_activity WHERE usename = 'medmitra_cases' AND datname = current_database()"
TERMINATE = f"SELECT pg_terminate_backend(pid, 5000) {SESSIONS}"


@pytest.fixture(autouse=True)
def _short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "WHOLE_CASES", 20)
    monkeypatch.setattr(cases, "CHUNK_CASES", 10)


@pytest.fixture(autouse=True)
def _alone(database: CasesDatabase) -> None:
    """No session of the test before, which may take a moment to end, is taken for one of this test."""
    wait_until(lambda: not states(database))


def add(database: CasesDatabase, count: int) -> None:
    """Give ``DOCTOR`` that many cases, among those of another."""
    database.add_many([DOCTOR, DOCTOR[:-1] + "7"], 2 * count)


def stored(database: CasesDatabase) -> list[dict[str, Any]]:
    """What the contract makes of ``DOCTOR``'s cases as the owner sees them."""
    columns = ", ".join(database.layout.owner_column if key == "user_id" else key for key in KEYS)
    rows = execute(
        database.owner,
        f"SELECT {columns} FROM {database.layout.relation} WHERE {database.layout.owner_column} = %s"
        " ORDER BY id",
        [DOCTOR],
    )
    return [in_json(dict(zip(KEYS, row, strict=True))) for row in rows]


def states(database: CasesDatabase) -> list[str]:
    """What the service's sessions are at."""
    return [state for (state,) in execute(database.owner, f"SELECT state {SESSIONS}")]


def begin(client: FlaskClient) -> tuple[TestResponse, Iterator[bytes]]:
    """Ask without taking the body; returns the answer and its chunks."""
    response = client.get(ASKED)
    chunks = response.iter_encoded()
    return response, iter(chunks)


@pytest.mark.parametrize("count", [19, 20, 21, 29, 30, 31, 95])
def test_every_length_is_whole(client: FlaskClient, database: CasesDatabase, count: int) -> None:
    add(database, count)
    response = client.get(ASKED)
    assert response.get_json() == {"cases": stored(database)}
    assert len(response.get_json()["cases"]) == count
    assert ("Content-Length" in response.headers) == (count <= 20)
    assert response.data == json.dumps(response.get_json(), separators=(",", ":")).encode()
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert response.content_type == "application/json"
    assert states(database) == ["idle"]


def test_a_list_is_of_one_moment(client: FlaskClient, database: CasesDatabase) -> None:
    add(database, 50)
    before = stored(database)
    _, chunks = begin(client)
    received = [next(chunks)]
    execute(database.owner, f"UPDATE {database.layout.relation} SET status = 'failed'")
    execute(database.owner, f"DELETE FROM {database.layout.relation} WHERE id % 3 = 0")
    add(database, 5)
    assert json.loads(b"".join([*received, *chunks])) == {"cases": before}


def test_it_begins_before_all_is_read(client: FlaskClient, database: CasesDatabase) -> None:
    add(database, 50)
    response, chunks = begin(client)
    first = next(chunks)
    assert first.startswith(b'{"cases":[{"case_id":"')
    assert first.count(b'"case_id"') == 10
    assert states(database) == ["idle in transaction"]
    response.close()


def test_a_reader_who_leaves_gives_the_connection_back(client: FlaskClient, database: CasesDatabase) -> None:
    add(database, 50)
    for _ in range(2):
        response, chunks = begin(client)
        next(chunks)
        response.close()
        assert states(database) == ["idle"]
    assert len(client.get(ASKED).get_json()["cases"]) == 50


def test_head_of_a_long_list(client: FlaskClient, database: CasesDatabase) -> None:
    add(database, 50)
    named = {"X-Request-ID": "the-same"}
    with client.head(ASKED, headers=named) as head:
        assert (head.status_code, head.data) == (200, b"")
    with client.get(ASKED, headers=named) as answer:
        assert dict(head.headers) == dict(answer.headers)
    assert states(database) == ["idle"]


def test_a_list_that_breaks_off_is_not_json(
    client: FlaskClient, database: CasesDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    add(database, 50)
    response = client.get(ASKED, headers={"X-Request-ID": "nightshift-1"})
    chunks = iter(response.iter_encoded())
    received = next(chunks)
    execute(database.owner, TERMINATE)
    with pytest.raises(BrokenOff):
        received += b"".join(chunks)
    response.close()
    with pytest.raises(json.JSONDecodeError):
        json.loads(received)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert message.startswith("request nightshift-1 broken off: database unavailable (OperationalError: ")
    assert len(client.get(ASKED).get_json()["cases"]) == 50
    assert states(database) == ["idle"]


def test_what_breaks_a_list_off_takes_no_data_along(
    client: FlaskClient,
    database: CasesDatabase,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refused(CaseBatches):
        count = 0

        def __next__(self) -> Any:
            self.count += 1
            if self.count == 2:
                raise DataRefused("22P02") from ValueError(
                    'invalid input syntax for type integer: "John Doe"'
                )
            return super().__next__()

    add(database, 50)
    monkeypatch.setattr(reader, "CaseBatches", Refused)
    _, chunks = begin(client)
    next(chunks)
    with pytest.raises(BrokenOff) as raised:
        next(chunks)
    logged = caplog.text + "".join(traceback.format_exception(raised.value))  # which the server logs
    assert "the database refused the data of this request (SQLSTATE 22P02)" in logged
    assert "John Doe" not in logged
    assert states(database) == ["idle"]


def test_a_list_that_cannot_be_written_is_a_500(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, 50)
    monkeypatch.setattr(CaseSchema, "dump_rows", lambda *_: 1 / 0)
    response = client.get(ASKED)
    assert response.status_code == 500
    assert response.get_json()["detail"].startswith("Internal server error: unexpected error (request id ")
    assert states(database) == ["idle"]


def test_a_batch_that_cannot_be_decoded_leaves_no_transaction(
    service_database: Database, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, 50)
    batches = service_database.read(0, CaseBatches, BOUND, 10)
    monkeypatch.setattr(
        "medmitra_cases.dao.batches.CaseBatches._size", property(lambda _: 1 / 0), raising=False
    )
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert states(database) == ["idle"]


def test_a_lost_connection_is_replaced_before_a_list_begins(
    service_database: Database, database: CasesDatabase
) -> None:
    add(database, 50)
    service_database.read(0, CaseBatches, BOUND, 10).close()
    execute(database.owner, TERMINATE)
    batches = service_database.read(0, CaseBatches, BOUND, 10)
    assert [len(batch.rows) for batch in batches] == [10] * 5
    batches.close()
    assert states(database) == ["idle"]


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
def test_a_list_that_cannot_begin_is_a_500(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "fetch_cases", lambda *_: None)  # too many, it says
    execute(database.owner, "ALTER TABLE medmitra.cases RENAME COLUMN status TO state")
    try:
        response = client.get(ASKED)
    finally:
        execute(database.owner, "ALTER TABLE medmitra.cases RENAME COLUMN state TO status")
    assert response.status_code == 500
    assert response.get_json()["detail"].startswith("Internal server error: unexpected database error")
    assert states(database) == ["idle"]


def test_a_list_whose_first_rows_cannot_be_read_is_a_500(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminated(CaseBatches):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            execute(database.owner, TERMINATE)

    add(database, 50)
    monkeypatch.setattr(reader, "CaseBatches", Terminated)
    response = client.get(ASKED)
    assert response.status_code == 500
    assert response.get_json()["detail"].startswith("Internal server error: database unavailable")


def test_cases_that_vanish_before_a_list_begins(
    client: FlaskClient, database: CasesDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, 50)

    def fetch_then_delete(*args: Any, **kwargs: Any) -> Any:
        fetched = fetch_cases(*args, **kwargs)
        database.clear()
        return fetched

    monkeypatch.setattr(reader, "fetch_cases", fetch_then_delete)
    assert client.get(ASKED).data == b'{"cases":[]}'


def test_closing_late_does_not_disturb_the_next(client: FlaskClient, database: CasesDatabase) -> None:
    add(database, 50)
    first, chunks = begin(client)
    b"".join(chunks)
    second, chunks = begin(client)
    received = next(chunks)
    first.close()
    assert len(json.loads(received + b"".join(chunks))["cases"]) == 50
    second.close()
