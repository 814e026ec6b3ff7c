"""Clients that poll while others write: each response was true at some moment during its request."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from threading import Lock
from typing import Any, NamedTuple

import psycopg2
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from psycopg2.errors import DeadlockDetected
from psycopg2.extensions import connection as PsycopgConnection

from medmitra_cases.responses import cases
from tests.support import factories
from tests.support.factories import DOCTOR, KEYS, CasesDatabase, execute, in_json

OTHER = DOCTOR[:-1] + "7"
DOCTORS = (DOCTOR, OTHER)
WRITERS = 2
SOURCES = ("auto", "body")

Case = dict[str, Any]


class Expected(NamedTuple):
    """A possible content of a response."""

    cases: list[Case]
    total: str | None = None


def page(found: list[Case], first: int, limit: int) -> Expected:
    return Expected(found[first : first + limit], str(len(found)))


def pending(found: list[Case]) -> list[Case]:
    return [columns for columns in found if columns["status"] == "pending"]


def by_age(found: list[Case]) -> list[Case]:
    return sorted(found, key=lambda columns: columns["patient_age"])


# Each query, and the response that it makes of a doctor's list.
QUERIES: dict[str, Callable[[list[Case]], Expected]] = {
    "": Expected,
    "&status=pending": lambda found: Expected(pending(found)),
    "&sort_by=patient_age": lambda found: Expected(by_age(found)),
    "&limit=2": lambda found: page(found, 0, 2),
    "&limit=2&page=2": lambda found: page(found, 2, 2),
    "&limit=2&page=2&sort_by=patient_age": lambda found: page(by_age(found), 2, 2),
    "&limit=2&status=pending": lambda found: page(pending(found), 0, 2),
    "&limit=1&sort_order=desc": lambda found: page(found[::-1], 0, 1),
}


class CachedResponse(NamedTuple):
    """A response as a client caches it under its ETag."""

    url: str
    body: bytes
    total: str | None
    link: str | None


class History:
    """All states of the two doctors' cases, in order, and the index of the last committed one."""

    def __init__(self, database: CasesDatabase) -> None:
        columns = ", ".join(database.layout.owner_column if key == "user_id" else key for key in KEYS)
        self._select = f"SELECT {columns} FROM {database.layout.relation} ORDER BY id"
        self._commits = Lock()
        self.states: list[list[Case]] = [[]]
        self.committed = 0

    def commit(self, writer: PsycopgConnection) -> None:
        """Commit a transaction. Its state is in the history before a client can read it."""
        with self._commits:
            rows = execute(writer, self._select)
            self.states.append([in_json(dict(zip(KEYS, row, strict=True))) for row in rows])
            writer.commit()
            self.committed = len(self.states) - 1

    def since(self, first: int, doctor: str) -> Iterator[list[Case]]:
        """Yield the doctor's list in each state from this index on."""
        for state in self.states[first:]:
            yield [columns for columns in state if columns["user_id"] == doctor]


# Statements of a writer. Most of them change one case, if there is one.
ONE_CASE = """
    WHERE id = (
        SELECT id
        FROM {relation}
        ORDER BY id
        LIMIT 1
        OFFSET %(number)s %% (SELECT greatest(count(*), 1) FROM {relation})
    )
"""
WRITES = {
    "insert": """
        INSERT INTO {relation} (case_id, {owner}, patient_name, patient_age, patient_gender, status)
        VALUES (gen_random_uuid(), %(doctor)s, 'Ada', %(number)s, 'female', 'pending')
    """,
    "delete": "DELETE FROM {relation}" + ONE_CASE,
    "age": "UPDATE {relation} SET patient_age = %(number)s" + ONE_CASE,
    "status": "UPDATE {relation} SET status = CASE status WHEN 'pending' THEN 'failed' ELSE 'pending' END"
    + ONE_CASE,
    "nothing": "UPDATE {relation} SET status = status" + ONE_CASE,
    "move": "UPDATE {relation} SET {owner} = %(doctor)s" + ONE_CASE,
}


class Write(NamedTuple):
    """One statement of a writer."""

    name: str
    doctor: str
    number: int


class Poll(NamedTuple):
    """One request: its service, its doctor and query, and how many of the received ETags it sends."""

    source: str
    doctor: str
    query: str
    tags: int

    @property
    def url(self) -> str:
        return f"/cases/all_cases?user_id={self.doctor}{self.query}"


doctors = st.sampled_from(DOCTORS)
transactions = st.lists(
    st.builds(Write, st.sampled_from(list(WRITES)), doctors, st.integers(0, 9)), min_size=1, max_size=2
)
polls = st.builds(
    Poll, st.sampled_from(SOURCES), doctors, st.sampled_from(list(QUERIES)), st.sampled_from([0, 1, 50])
)


class Context(NamedTuple):
    """Objects that all runs of the state machine share."""

    database: CasesDatabase
    clients: dict[str, FlaskClient]
    writers: list[PsycopgConnection]
    cached: dict[str, CachedResponse]


@pytest.fixture
def context(database: CasesDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A service for each source of ETags, which streams lists of four cases or more, and the writers."""
    monkeypatch.setattr(cases, "WHOLE_CASES", 3)
    monkeypatch.setattr(cases, "CHUNK_CASES", 2)
    with ExitStack() as stack:
        writers = [stack.enter_context(closing(psycopg2.connect(database.owner_dsn))) for _ in range(WRITERS)]
        for writer in writers:
            execute(writer, "SET session_replication_role = replica; SET deadlock_timeout = '10ms'")
            writer.commit()
        clients = {}
        for source in SOURCES:
            client = factories.client_on(database.service_dsn, MEDMITRA_ETAG_SOURCE=source)
            clients[source] = stack.enter_context(client)
        yield Context(database, clients, writers, {})


class Polling(RuleBasedStateMachine):
    """Clients of two doctors, which cache each response, and writers that change the cases of both."""

    context: Context

    @initialize()
    def begin(self) -> None:
        self.context.database.clear()
        self.history = History(self.context.database)
        self.tags: dict[str, list[str]] = {}

    @rule(writes=transactions)
    def write(self, writes: list[Write]) -> None:
        self._write(self.context.writers[0], [writes])

    @rule(poll=polls)
    def poll(self, poll: Poll) -> None:
        self._poll(poll)

    @rule(
        polls=st.lists(polls, min_size=1, max_size=6),
        written=st.tuples(*[st.lists(transactions, min_size=1, max_size=6)] * WRITERS),
    )
    def poll_while_others_write(self, polls: list[Poll], written: tuple[list[list[Write]], ...]) -> None:
        with ThreadPoolExecutor(WRITERS) as pool:
            writing = pool.map(self._write, self.context.writers, written)
            for poll in polls:
                self._poll(poll)
            list(writing)  # raises the exceptions of the writers

    def _write(self, writer: PsycopgConnection, transactions: list[list[Write]]) -> None:
        layout = self.context.database.layout
        for writes in transactions:
            try:
                for write in writes:
                    statement = WRITES[write.name].format(relation=layout.relation, owner=layout.owner_column)
                    execute(writer, statement, write._asdict())
            except DeadlockDetected:
                writer.rollback()
            else:
                self.history.commit(writer)

    def _poll(self, poll: Poll) -> None:
        tags = self.tags.setdefault(poll.url, [])
        sent = tags[-poll.tags :] if poll.tags else ['"none"']
        committed = self.history.committed
        with self.context.clients[poll.source].get(
            poll.url, headers={"If-None-Match": ", ".join(sent)}
        ) as response:
            body, headers, status = response.data, response.headers, response.status_code
        event(f"status {status}")
        if status == 304:
            assert headers["ETag"] in sent
            body = self.context.cached[headers["ETag"]].body
        else:
            assert status == 200
        cached = CachedResponse(poll.url, body, headers.get("X-Total-Count"), headers.get("Link"))
        # One ETag never stands for two responses. Each response was true at some moment during its request.
        assert self.context.cached.setdefault(headers["ETag"], cached) == cached
        lists = self.history.since(committed, poll.doctor)
        assert Expected(json.loads(body)["cases"], cached.total) in map(QUERIES[poll.query], lists)
        tags.append(headers["ETag"])


def test_each_response_was_true_during_its_request(context: Context) -> None:
    class PollingWithContext(Polling):
        pass

    PollingWithContext.context = context
    run_state_machine_as_test(
        PollingWithContext,
        settings=settings(
            max_examples=settings().max_examples // 3,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
