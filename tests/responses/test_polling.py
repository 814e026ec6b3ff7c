"""Clients that poll while others write: what they are told they have is true at a moment of their request."""

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
SOURCES = ("row_versions", "body")

Case = dict[str, Any]


class Truth(NamedTuple):
    """What an answer may be."""

    cases: list[Case]
    total: str | None = None


def page(found: list[Case], first: int, limit: int) -> Truth:
    return Truth(found[first : first + limit], str(len(found)))


def pending(found: list[Case]) -> list[Case]:
    return [columns for columns in found if columns["status"] == "pending"]


def by_age(found: list[Case]) -> list[Case]:
    return sorted(found, key=lambda columns: columns["patient_age"])


# What is asked, and what a list then is in the answer.
QUERIES: dict[str, Callable[[list[Case]], Truth]] = {
    "": Truth,
    "&status=pending": lambda found: Truth(pending(found)),
    "&sort_by=patient_age": lambda found: Truth(by_age(found)),
    "&limit=2": lambda found: page(found, 0, 2),
    "&limit=2&page=2": lambda found: page(found, 2, 2),
    "&limit=2&page=2&sort_by=patient_age": lambda found: page(by_age(found), 2, 2),
    "&limit=2&status=pending": lambda found: page(pending(found), 0, 2),
    "&limit=1&sort_order=desc": lambda found: page(found[::-1], 0, 1),
}


class Known(NamedTuple):
    """What a client keeps under a tag."""

    url: str
    body: bytes
    total: str | None
    link: str | None


class History:
    """All that the two doctors' lists ever were, in order, and how much of it is committed."""

    def __init__(self, database: CasesDatabase) -> None:
        columns = ", ".join(database.layout.owner_column if key == "user_id" else key for key in KEYS)
        self._select = f"SELECT {columns} FROM {database.layout.relation} ORDER BY id"
        self._commits = Lock()
        self.states: list[list[Case]] = [[]]
        self.committed = 0

    def commit(self, writer: PsycopgConnection) -> None:
        """Commit a transaction; its state is in the history before anybody can see it."""
        with self._commits:
            rows = execute(writer, self._select)
            self.states.append([in_json(dict(zip(KEYS, row, strict=True))) for row in rows])
            writer.commit()
            self.committed = len(self.states) - 1

    def since(self, committed: int, doctor: str) -> Iterator[list[Case]]:
        """Lists of the doctor from a state on that was the latest to be committed."""
        for state in self.states[committed:]:
            yield [columns for columns in state if columns["user_id"] == doctor]


# Statements of a writer. One of the cases, if there are any, is changed by most.
SOME = """
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
    "delete": "DELETE FROM {relation}" + SOME,
    "age": "UPDATE {relation} SET patient_age = %(number)s" + SOME,
    "status": "UPDATE {relation} SET status = CASE status WHEN 'pending' THEN 'failed' ELSE 'pending' END"
    + SOME,
    "nothing": "UPDATE {relation} SET status = status" + SOME,
    "move": "UPDATE {relation} SET {owner} = %(doctor)s" + SOME,
}


class Write(NamedTuple):
    """One statement of a writer."""

    name: str
    doctor: str
    number: int


class Ask(NamedTuple):
    """One request: of which service, for what, and how many of the tags it has had it sends."""

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
asks = st.builds(
    Ask, st.sampled_from(SOURCES), doctors, st.sampled_from(list(QUERIES)), st.sampled_from([0, 1, 50])
)


class World(NamedTuple):
    """What the machine's runs have in common."""

    database: CasesDatabase
    clients: dict[str, FlaskClient]
    writers: list[PsycopgConnection]
    known: dict[str, Known]


@pytest.fixture
def world(database: CasesDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Services by their source of tags, to which four cases are a long list; writers without triggers."""
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
        yield World(database, clients, writers, {})


class Polling(RuleBasedStateMachine):
    """Two doctors' clients, each of which keeps what it got, and writers of both doctors' cases."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.world.database.clear()
        self.history = History(self.world.database)
        self.tags: dict[str, list[str]] = {}

    @rule(writes=transactions)
    def write(self, writes: list[Write]) -> None:
        self._write(self.world.writers[0], [writes])

    @rule(ask=asks)
    def ask(self, ask: Ask) -> None:
        self._ask(ask)

    @rule(
        asked=st.lists(asks, min_size=1, max_size=6),
        written=st.tuples(*[st.lists(transactions, min_size=1, max_size=6)] * WRITERS),
    )
    def ask_while_others_write(self, asked: list[Ask], written: tuple[list[list[Write]], ...]) -> None:
        with ThreadPoolExecutor(WRITERS) as pool:
            writing = pool.map(self._write, self.world.writers, written)
            for ask in asked:
                self._ask(ask)
            list(writing)  # raises what a writer raised

    def _write(self, writer: PsycopgConnection, transactions: list[list[Write]]) -> None:
        layout = self.world.database.layout
        for writes in transactions:
            try:
                for write in writes:
                    statement = WRITES[write.name].format(relation=layout.relation, owner=layout.owner_column)
                    execute(writer, statement, write._asdict())
            except DeadlockDetected:
                writer.rollback()
            else:
                self.history.commit(writer)

    def _ask(self, ask: Ask) -> None:
        tags = self.tags.setdefault(ask.url, [])
        sent = tags[-ask.tags :] if ask.tags else ['"none"']
        committed = self.history.committed
        with self.world.clients[ask.source].get(
            ask.url, headers={"If-None-Match": ", ".join(sent)}
        ) as response:
            body, headers, status = response.data, response.headers, response.status_code
        event(f"status {status}")
        if status == 304:
            assert headers["ETag"] in sent
            body = self.world.known[headers["ETag"]].body
        else:
            assert status == 200
        answer = Known(ask.url, body, headers.get("X-Total-Count"), headers.get("Link"))
        # Never two answers under one tag, and never one that was not true meanwhile.
        assert self.world.known.setdefault(headers["ETag"], answer) == answer
        lists = self.history.since(committed, ask.doctor)
        assert Truth(json.loads(body)["cases"], answer.total) in map(QUERIES[ask.query], lists)
        tags.append(headers["ETag"])


def test_what_polling_clients_have_is_true(world: World) -> None:
    class PollingHere(Polling):
        pass

    PollingHere.world = world
    run_state_machine_as_test(
        PollingHere,
        settings=settings(
            max_examples=settings().max_examples // 3,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
