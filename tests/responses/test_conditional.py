"""Conditional requests: 304 comes if, and only if, the client already has what it would get."""

import datetime as dt
import http.client
import importlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import psycopg2
import pytest
from flask.testing import FlaskClient
from psycopg2.extensions import connection as PsycopgConnection
from psycopg2.extensions import make_dsn, parse_dsn
from werkzeug.test import TestResponse

import medmitra_cases
from medmitra_cases import database as database_wing
from medmitra_cases.dao import reader
from medmitra_cases.database import read_sql, sql_directory
from medmitra_cases.database.connection import _Cursor
from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.responses import cases, etags
from medmitra_cases.schemas.case import CaseSchema
from medmitra_cases.testing.postgres import make_roles, new_database
from tests.support.factories import DOCTOR, KEYS, LAYOUTS, CasesDatabase, case, client_on, execute
from tests.support.processes import Running, frozen, run_program, serve, wait_until

URL = "/cases/all_cases?user_id="
ASKED = URL + DOCTOR
OTHER = DOCTOR[:-1] + "7"

# Of the five cases in ``filled`` and their order: {second} is the second one's id.
QUERIES = {
    "all": ASKED,
    "filtered": f"{ASKED}&status=pending",
    "sorted": f"{ASKED}&sort_by=patient_name&sort_order=desc",
    "first page": f"{ASKED}&limit=2",
    "page by number": f"{ASKED}&sort_by=patient_age&limit=2&page=2",
    "page of a filter": f"{ASKED}&status=pending&limit=2",
    "past the last page": f"{ASKED}&limit=2&page=9",
    "backwards": f"{ASKED}&sort_order=desc&limit=3",
    "what is new": f"{ASKED}&after={{second}}",
    "page by key": f"{ASKED}&after={{second}}&limit=2",
}


class Answer(NamedTuple):
    """What a client has of an answer."""

    tag: str
    body: bytes
    total: str | None
    link: str | None

    @classmethod
    def of(cls, response: TestResponse) -> "Answer":
        with response:
            assert response.status_code == 200, response.data
            headers = response.headers
            return cls(headers["ETag"], response.data, headers.get("X-Total-Count"), headers.get("Link"))


@pytest.fixture(params=["row_versions", "body"])
def source(request: pytest.FixtureRequest) -> str:
    """What tags are made of."""
    made_of: str = request.param
    return made_of


@pytest.fixture(params=["whole", "in pieces"])
def lists(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How lists are sent."""
    if request.param == "in pieces":
        monkeypatch.setattr(cases, "WHOLE_CASES", 1)
        monkeypatch.setattr(cases, "CHUNK_CASES", 2)
    how: str = request.param
    return how


@pytest.fixture
def filled(database: CasesDatabase) -> list[dict[str, Any]]:
    """Five cases of ``DOCTOR``, three of them pending."""
    mine = [
        case(status=status, patient_age=age)
        for status, age in [("pending", 5), ("completed", 3), ("pending", 4), ("failed", 1), ("pending", 2)]
    ]
    database.add(*mine)
    return mine


@pytest.fixture
def asked(filled: list[dict[str, Any]]) -> dict[str, str]:
    """The queries, by name."""
    return {name: url.format(second=filled[1]["case_id"]) for name, url in QUERIES.items()}


@contextmanager
def serving(database: CasesDatabase, **variables: str) -> Iterator[FlaskClient]:
    """A client of a service that has just been started."""
    with client_on(database.service_dsn, **variables) as client:
        yield client


@pytest.fixture
def client(database: CasesDatabase, source: str, lists: str) -> Iterator[FlaskClient]:  # noqa: ARG001
    """A client of a service with that source of tags, which sends its lists like that."""
    with serving(database, MEDMITRA_ETAG_SOURCE=source) as client:
        yield client


def ask(client: FlaskClient, url: str, known: str | None = None, method: str = "GET") -> TestResponse:
    """Ask under one request id, with these tags; returns the answer after it has come whole."""
    headers = {"X-Request-ID": "the-same"} | ({} if known is None else {"If-None-Match": known})
    response = client.open(url, method=method, headers=headers)
    with response:
        response.get_data()
    return response


def get(client: FlaskClient, url: str) -> Answer:
    return Answer.of(client.get(url))


class TestTheTag:
    def test_every_200_has_a_strong_one(self, client: FlaskClient, asked: dict[str, str]) -> None:
        for url in asked.values():
            full, head = ask(client, url), ask(client, url, method="HEAD")
            (tag,) = full.headers.getlist("ETag")
            assert re.fullmatch(r'"[\x21\x23-\x7e]+"', tag)
            assert full.status_code == head.status_code == 200
            assert (dict(head.headers), head.data) == (dict(full.headers), b"")

    def test_an_empty_list_has_one(self, client: FlaskClient) -> None:
        nobody, nobody_else = (get(client, URL + doctor[:-1] + "0") for doctor in (DOCTOR, "f" + DOCTOR[1:]))
        assert nobody.body == nobody_else.body == b'{"cases":[]}'
        assert nobody.tag != nobody_else.tag
        assert ask(client, URL + DOCTOR[:-1] + "0", nobody.tag).status_code == 304

    def test_errors_have_none(self, client: FlaskClient) -> None:
        for url in (URL, f"{ASKED}&limit=0", f"{ASKED}&after={OTHER}"):
            response = ask(client, url, "*")
            assert response.status_code == 400
            assert "ETag" not in response.headers

    def test_each_query_has_one_of_its_own(self, client: FlaskClient, asked: dict[str, str]) -> None:
        same = ("&min_age=0", "&max_age=99", "&search=a", "&start_date=2026-01-01", "&limit=100", "&limit=99")
        urls = [*asked.values(), *(f"{ASKED}{more}" for more in same), URL + OTHER]
        tags = [get(client, url).tag for url in urls]
        for url, tag in zip(urls, tags, strict=True):
            assert tags.count(tag) == 1
            others = ", ".join(other for other in tags if other != tag)
            assert ask(client, url, others).status_code == 200


KNOWN = [
    "{tag}",
    "W/{tag}",
    '"x", {tag}',
    '{tag},"y"',
    ' W/"x" ,, "", W/{tag}\t,',
    '"unclosed, {tag}',
    '"a,b", {tag}',
    ", ".join(f'"{number}"' for number in range(5_000)) + ", {tag}",
    "{unquoted}",
    "*",
]
UNKNOWN = [
    *('"x"', 'W/"x"', '"x", W/"y"', "", " ", ",", '"', '""', "W/", '"*"', '"x", *', "**", "\xff", '"\xff"'),
    *("{unquoted}x", '"{unquoted}', '"{upper}"', '"{half}"', "w{tag}", '"x{unquoted}"', "x" * 100_000),
]


def fill_in(pattern: str, tag: str) -> str:
    """Write an ``If-None-Match``."""
    unquoted = tag.strip('"')
    return (
        pattern.replace("{tag}", tag)
        .replace("{unquoted}", unquoted)
        .replace("{upper}", unquoted.upper())
        .replace("{half}", unquoted[: len(unquoted) // 2])
    )


def test_who_has_it_gets_the_headers_alone(client: FlaskClient, asked: dict[str, str]) -> None:
    for url in asked.values():
        full = ask(client, url)
        for known, method in itertools.product((full.headers["ETag"], "*"), ("GET", "HEAD")):
            response = ask(client, url, known, method)
            assert (response.status_code, response.data) == (304, b"")
            left_out = ("Content-Type", "Content-Length")
            headers = dict(response.headers)
            assert headers == {name: value for name, value in full.headers.items() if name not in left_out}
            assert {"ETag", "Cache-Control", "Vary", "X-Content-Type-Options", "X-Request-ID"} < set(headers)
            assert ("X-Total-Count" in headers) == ("Link" in headers) == ("limit" in url)


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
@pytest.mark.parametrize("lists", ["whole"], indirect=True)
class TestWhatIsSent:
    @pytest.mark.parametrize("known", KNOWN)
    def test_these_name_the_tag(self, client: FlaskClient, asked: dict[str, str], known: str) -> None:
        for url in (asked["all"], asked["page by key"]):
            assert ask(client, url, fill_in(known, get(client, url).tag)).status_code == 304

    @pytest.mark.parametrize("known", UNKNOWN)
    def test_these_do_not(self, client: FlaskClient, asked: dict[str, str], known: str) -> None:
        for url in (asked["all"], asked["page by key"]):
            answer = get(client, url)
            assert Answer.of(ask(client, url, fill_in(known, answer.tag))) == answer


@pytest.mark.parametrize("source", ["row_versions"], indirect=True)
def test_for_a_304_no_case_is_read(
    client: FlaskClient, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {url: get(client, url).tag for url in asked.values()}
    for module, name in [
        (reader, "fetch_cases"),
        (reader, "CaseBatches"),
        (CaseSchema, "dump_rows"),
    ]:
        monkeypatch.setattr(module, name, None)
    sizes: list[int] = []

    def fetch(cursor: _Cursor) -> list[tuple[Any, ...]]:
        rows = fetchall(cursor)
        sizes.append(len(rows))
        return rows

    fetchall = psycopg2.extensions.cursor.fetchall
    monkeypatch.setattr(_Cursor, "fetchall", fetch, raising=False)
    for url, tag in known.items():
        assert ask(client, url, tag).status_code == 304
        assert ask(client, url, '"x"').status_code == 500
    assert set(sizes) == {1}  # the version


# What happens to a doctor's cases: statements of one transaction. {owner} is the doctor's column; {first},
# {second}, {last} and {new} are ids of cases.
SET = "UPDATE {relation} SET "
SECOND = " WHERE case_id = '{second}'"
INSERT = (
    "INSERT INTO {relation} (case_id, {owner}, patient_name, patient_age, patient_gender)"
    " VALUES (gen_random_uuid(), '{doctor}', 'Zoe', 3, 'female')"
)
CHANGES = {
    "insert": [INSERT],
    "insert two": [INSERT, INSERT],
    "delete": ["DELETE FROM {relation} WHERE case_id = '{last}'"],
    "delete all": ["DELETE FROM {relation} WHERE {owner} = '{doctor}' AND case_id <> '{second}'"],
    **{
        name: [f"{SET}{name} = {value}{SECOND}"]
        for name, value in {
            "patient_name": "'Zoe'",
            "patient_age": "99",
            "patient_gender": "'other'",
            "case_summary": "NULL",
            "status": "'pending'",
            "created_at": "created_at + interval '1 microsecond'",
            "updated_at": "updated_at + interval '1 microsecond'",
        }.items()
    },
    "case_id": [SET + "case_id = '{new}' WHERE case_id = '{last}'"],
    "to the end of the order": [f"{SET}id = DEFAULT WHERE case_id = '{{first}}'"],
    "moved to another doctor": [f"{SET}{{owner}} = '{{other}}' WHERE case_id = '{{last}}'"],
    "delete and insert": [
        "WITH gone AS (DELETE FROM {relation} WHERE case_id = '{last}' RETURNING *)"
        " INSERT INTO {relation} OVERRIDING SYSTEM VALUE"
        " SELECT id + 1000000, '{new}', {owner}, patient_name, patient_age, patient_gender, case_summary,"
        " status, created_at, updated_at FROM gone"
    ],
    "delete and insert at the same place": [
        "CREATE TEMPORARY TABLE gone ON COMMIT DROP AS SELECT * FROM {relation} WHERE case_id = '{last}'",
        "DELETE FROM {relation} WHERE case_id = '{last}'",
        "INSERT INTO {relation} OVERRIDING SYSTEM VALUE"
        " SELECT id, case_id, {owner}, 'Zoe', patient_age, patient_gender, case_summary, status, created_at,"
        " updated_at FROM gone",
    ],
    "two cases change doctors": [
        f"{SET}{{owner}} = '{{other}}' WHERE case_id = '{{last}}'",
        f"{SET}{{owner}} = '{{doctor}}' WHERE {{owner}} = '{{other}}' AND case_id <> '{{last}}'",
    ],
    "twice in one transaction": [f"{SET}status = 'x'{SECOND}", f"{SET}status = 'y'{SECOND}"],
}


def change(database: CasesDatabase, statements: list[str], **values: str) -> None:
    """Run statements in one transaction, in which no trigger sets updated_at."""
    whole = ";\n".join(["BEGIN", "SET LOCAL session_replication_role = replica", *statements, "COMMIT"])
    names = {"relation": database.layout.relation, "owner": database.layout.owner_column}
    execute(database.owner, whole.format(**names, doctor=DOCTOR, other=OTHER, **values))


def ids(filled: list[dict[str, Any]]) -> dict[str, str]:
    first, second, *_, last = (columns["case_id"] for columns in filled)
    return {"first": first, "second": second, "last": last, "new": case()["case_id"]}


class TestChanges:
    @pytest.mark.parametrize("name", CHANGES)
    def test_what_changes_the_answer_changes_the_tag(
        self,
        client: FlaskClient,
        database: CasesDatabase,
        filled: list[dict[str, Any]],
        asked: dict[str, str],
        name: str,
    ) -> None:
        before = {url: get(client, url) for url in asked.values()}
        change(database, CHANGES[name], **ids(filled))
        assert get(client, ASKED).body != before[ASKED].body
        for url, old in before.items():
            response = client.get(url)
            if response.status_code == 400:  # the case to go on after is another one
                continue
            new = Answer.of(response)
            if new[1:] != old[1:]:
                assert new.tag != old.tag
                assert Answer.of(ask(client, url, old.tag)) == new

    def test_an_update_that_changes_nothing(
        self, client: FlaskClient, database: CasesDatabase, asked: dict[str, str], source: str
    ) -> None:
        """It makes new versions of the rows: the tag is new, unless it is made of the body."""
        before = {url: get(client, url) for url in asked.values()}
        # Without a trigger that sets updated_at.
        change(database, [SET + "status = status"])
        for url, old in before.items():
            new = get(client, url)
            assert new[1:] == old[1:]
            assert (new.tag == old.tag) == (source == "body" or url == asked["past the last page"])

    def test_a_case_moved_away_and_back(
        self, client: FlaskClient, database: CasesDatabase, filled: list[dict[str, Any]]
    ) -> None:
        mine, theirs = get(client, ASKED), get(client, URL + OTHER)
        change(database, CHANGES["moved to another doctor"], **ids(filled))
        assert ask(client, ASKED, mine.tag).status_code == 200
        without = get(client, ASKED)
        assert ask(client, URL + OTHER, theirs.tag).status_code == 200
        change(database, [SET + "{owner} = '{doctor}' WHERE case_id = '{last}'"], **ids(filled))
        assert Answer.of(ask(client, ASKED, without.tag))[1:] == mine[1:]
        assert get(client, URL + OTHER)[1:] == theirs[1:]
        assert ask(client, URL + OTHER, theirs.tag).status_code == 304  # it is of the same rows as before

    def test_the_total_alone(
        self, client: FlaskClient, database: CasesDatabase, asked: dict[str, str]
    ) -> None:
        before = get(client, asked["first page"])
        database.add(case())
        after = Answer.of(ask(client, asked["first page"], before.tag))
        assert after.body == before.body
        assert (before.total, after.total) == ("5", "6")
        assert before.link == after.link  # five and six cases make three pages of two
        assert before.tag != after.tag

    def test_what_is_of_no_concern_leaves_the_tag(
        self, client: FlaskClient, database: CasesDatabase, asked: dict[str, str]
    ) -> None:
        before = {url: get(client, url) for url in asked.values()}
        database.add(case(user_id=OTHER))
        execute(
            database.owner,
            f"UPDATE {database.layout.relation} SET status = 'failed'"
            f" WHERE {database.layout.owner_column} <> %s",
            [DOCTOR],
        )
        execute(database.owner, f"BEGIN; DELETE FROM {database.layout.relation}; ROLLBACK")
        execute(database.owner, f"VACUUM (FULL, FREEZE, ANALYZE) {database.layout.relation}")
        for url, old in before.items():
            assert ask(client, url, old.tag).status_code == 304

    def test_a_case_that_a_filter_leaves_out_is_of_no_concern(
        self,
        client: FlaskClient,
        database: CasesDatabase,
        asked: dict[str, str],
        filled: list[dict[str, Any]],
    ) -> None:
        names = ("filtered", "page of a filter")
        before = {asked[name]: get(client, asked[name]) for name in names}
        change(database, CHANGES["patient_name"], **ids(filled))
        for url, old in before.items():
            assert ask(client, url, old.tag).status_code == 304


@contextmanager
def changed(owner: object, name: str, value: object) -> Iterator[None]:
    """Let the service be one with other code or other SQL, as far as its tags are concerned."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, value)
            importlib.reload(etags)
            yield
    finally:
        importlib.reload(etags)


CHANGE_EACH_FOLDER = """
import importlib, pathlib, sys
from medmitra_cases.responses import etags
from medmitra_cases.models import CaseQuery, Version

package = pathlib.Path(sys.argv[1])
assert etags.__file__.startswith(str(package))

def tag():
    return importlib.reload(etags).entity_tag(CaseQuery(""), Version(0, "", None))

print(tag())
for folder in sorted({path.parent for path in package.rglob("*.py")}):
    with min(folder.glob("*.py")).open("a") as file:
        file.write("# changed")
    print(tag())
"""


class TestAnotherService:
    def test_of_another_version(self, client: FlaskClient, asked: dict[str, str]) -> None:
        before = {url: get(client, url) for url in asked.values()}
        read = Path.read_bytes

        def read_changed(path: Path) -> bytes:
            return read(path) + (b"# changed" if path.name == "case.py" else b"")

        with changed(Path, "read_bytes", read_changed):
            for url, old in before.items():
                assert Answer.of(ask(client, url, old.tag))[1:] == old[1:]
        for url, old in before.items():
            assert ask(client, url, old.tag).status_code == 304

    def test_of_another_version_in_any_part_of_it(self, tmp_path: Path) -> None:
        """In a copy of the package one file of each folder is changed after the other."""
        package = tmp_path / "medmitra_cases"
        shutil.copytree(Path(medmitra_cases.__file__).parent, package)
        shutil.copytree(sql_directory(), package / "sql", dirs_exist_ok=True)
        tags = run_program(
            [sys.executable, "-c", CHANGE_EACH_FOLDER, package],
            {"PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
        )
        assert tags.returncode == 0, tags.stderr
        seen = tags.stdout.split()
        folders = {path.parent for path in package.rglob("*.py")}
        assert len(seen) == len(set(seen)) == 1 + len(folders)

    def test_with_sql_of_the_operators_own(self, client: FlaskClient, tmp_path: Path) -> None:
        before = get(client, ASKED)
        shutil.copytree(sql_directory(), tmp_path / "sql")
        with (tmp_path / "sql" / "select_cases.sql").open("a") as file:
            file.write("-- adapted\n")
        with changed(database_wing, "sql_directory", lambda: tmp_path / "sql"):
            assert ask(client, ASKED, before.tag).status_code == 200

    def test_with_the_other_source_of_tags(self, database: CasesDatabase, asked: dict[str, str]) -> None:
        with (
            serving(database) as by_rows,
            serving(database, MEDMITRA_ETAG_SOURCE="body") as by_body,
        ):
            for url in asked.values():
                assert ask(by_body, url, get(by_rows, url).tag).status_code == 200
                assert ask(by_rows, url, get(by_body, url).tag).status_code == 200

    def test_started_again(self, database: CasesDatabase, asked: dict[str, str], source: str) -> None:
        """Another process, or another instance beside it, knows the same tags."""
        with serving(database, MEDMITRA_ETAG_SOURCE=source) as client:
            before = {url: get(client, url) for url in asked.values()}
        with serving(database, MEDMITRA_ETAG_SOURCE=source) as client:
            for url, old in before.items():
                assert ask(client, url, old.tag).status_code == 304


@contextmanager
def altered(database: CasesDatabase, there: str, back: str) -> Iterator[None]:
    """Run these statements before and after the block."""
    execute(database.owner, there)
    try:
        yield
    finally:
        execute(database.owner, back)


# The view as the operator may have changed it: no row is written by that.
VIEW = read_sql("existing_table")
SHOUTING_VIEW = VIEW.replace("    status,\n", "    upper(status) AS status,\n")
RENAMED = "; ".join(
    f"ALTER TABLE medmitra.cases RENAME {old} TO {new}"
    for old, new in [("status", "x"), ("patient_gender", "status"), ("x", "patient_gender")]
)
# Sorts and compares as before here, where there are no locales; elsewhere it need not.
COLLATED = 'ALTER TABLE medmitra.cases ALTER patient_name TYPE text COLLATE "{}"'


class Interruption:
    """Something that happens once, before one of the statements that the service sends (counted from 1)."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._countdown = 0
        execute_all, fetch = _Cursor.execute, _Cursor.fetchmany

        def execute_each(cursor: _Cursor, query: str, values: Any = None) -> None:
            # Where no transaction is open, one string of several statements is one.
            apart = [query] if cursor.connection.autocommit else re.split(r";\n(?=-- name: |DECLARE )", query)
            for statement in apart:
                self._count()
                execute_all(cursor, statement, values)

        def fetch_some(cursor: _Cursor, size: int | None = None) -> Any:
            self._count()
            return fetch(cursor, size)

        patch.setattr(_Cursor, "execute", execute_each)
        patch.setattr(_Cursor, "fetchmany", fetch_some)

    def plan(self, number: int, happen: Callable[[], object]) -> None:
        self._countdown, self._happen = number, happen

    def _count(self) -> None:
        self._countdown -= 1
        if self._countdown == 0:
            self._happen()

    @property
    def has_happened(self) -> bool:
        return self._countdown <= 0


class TestAnotherSchema:
    """What the table or view is counts, as it is when the service connects."""

    @pytest.mark.parametrize("layout_database", ["existing_table"], indirect=True)
    def test_another_view(self, database: CasesDatabase, asked: dict[str, str], source: str) -> None:
        with serving(database, MEDMITRA_ETAG_SOURCE=source) as client:
            before = {url: get(client, url) for url in asked.values()}
        with altered(database, SHOUTING_VIEW, VIEW), serving(database, MEDMITRA_ETAG_SOURCE=source) as client:
            assert b"PENDING" in get(client, ASKED).body
            for url, old in before.items():
                new = Answer.of(ask(client, url, old.tag)) if b'"pending"' in old.body else None
                assert new is None or new.body != old.body

    @pytest.mark.parametrize("layout_database", ["existing_table"], indirect=True)
    @pytest.mark.usefixtures("filled")
    def test_another_view_below_the_view(self, database: CasesDatabase) -> None:
        below = VIEW.replace("medmitra.cases AS", "medmitra.below AS")
        with altered(database, below, "DROP VIEW medmitra.below"):
            columns = ", ".join(("id", *KEYS, "xmin"))
            above = f"CREATE OR REPLACE VIEW medmitra.cases AS SELECT {columns} FROM medmitra.below"
            with altered(database, above, VIEW):
                with serving(database) as client:
                    before = get(client, ASKED)
                execute(database.owner, SHOUTING_VIEW.replace("medmitra.cases AS", "medmitra.below AS"))
                with serving(database) as client:
                    assert Answer.of(ask(client, ASKED, before.tag)).body != before.body

    @pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
    def test_columns_that_change_names(self, database: CasesDatabase, asked: dict[str, str]) -> None:
        with serving(database) as client:
            before = get(client, asked["all"])
        with altered(database, RENAMED, RENAMED), serving(database) as client:
            assert Answer.of(ask(client, asked["all"], before.tag)).body != before.body

    @pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
    def test_another_collation(self, database: CasesDatabase, asked: dict[str, str]) -> None:
        """No row is written anew, but the order may be another."""
        with serving(database) as client:
            before = get(client, asked["sorted"])
        with (
            altered(database, COLLATED.format("C"), COLLATED.format("default")),
            serving(database) as client,
        ):
            assert ask(client, asked["sorted"], before.tag).status_code == 200

    @pytest.mark.parametrize("layout_database", ["existing_table"], indirect=True)
    def test_a_view_that_is_replaced_while_it_is_read(
        self, database: CasesDatabase, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the first answer of a connection is, it does not pass for the new one after a restart."""
        interruption = Interruption(monkeypatch)
        for number in itertools.count(1):
            with altered(database, VIEW, VIEW):
                with serving(database) as client:
                    interruption.plan(number, lambda: execute(database.owner, SHOUTING_VIEW))
                    first = get(client, asked["all"])
                if not interruption.has_happened:
                    assert number > 2
                    break
                with serving(database) as client:
                    now = get(client, asked["all"])
                assert b"PENDING" in now.body
                assert now.tag != first.tag or now.body == first.body


@contextmanager
def started(folder: Path) -> Iterator[CasesDatabase]:
    """A Postgres of the test's own, with what it held the last time."""
    with embedded_postgres(folder) as dsn, closing(psycopg2.connect(dsn)) as owner:
        owner.autocommit = True
        yield CasesDatabase(LAYOUTS["own_table"], owner, dsn, make_dsn(dsn, user="medmitra_cases"))


def update(database: CasesDatabase, status: str) -> str:
    """Change all cases; returns the number of the transaction that did."""
    execute(database.owner, f"UPDATE medmitra.cases SET status = '{status}'")
    ((number,),) = execute(database.owner, "SELECT DISTINCT xmin FROM medmitra.cases")
    return str(number)


# A crash drops the statistics.
RESET = "SELECT pg_stat_get_bgwriter_stat_reset_time()"


class TestAnotherServer:
    """Postgres put back, crashed or restored: the numbers of lost transactions go to others."""

    def test_a_backup_put_back(self, folder: Path) -> None:
        with started(folder) as database:
            database.layout.create(database.owner)
            database.add(case())
        (data,) = folder.glob("data-*")
        backup = folder / "backup"
        subprocess.run(["cp", "-a", data, backup], check=True)
        with started(folder) as database, serving(database) as client:
            lost = update(database, "lost")
            before = get(client, ASKED)
        shutil.rmtree(data)
        backup.rename(data)
        with started(folder) as database, serving(database) as client:
            assert update(database, "done") == lost
            assert b"done" in Answer.of(ask(client, ASKED, before.tag)).body

    def test_a_crash_that_loses_transactions(self, folder: Path) -> None:
        """Where commits do not wait for the disk, a session that is killed takes some along."""
        with started(folder) as database, serving(database) as client:
            database.layout.create(database.owner)
            database.add(case())
            for setting in ("synchronous_commit = off", "wal_writer_delay = '10s'"):
                execute(database.owner, f"ALTER SYSTEM SET {setting}")
            execute(database.owner, "SELECT pg_reload_conf()")
            wait_until(lambda: execute(database.owner, "SHOW wal_writer_delay") == [("10s",)])
            execute(database.owner, "CHECKPOINT")
            ((steady_since,),) = execute(database.owner, RESET)
            with frozen(pid_of_wal_writer(database)):  # which would save them
                lost = update(database, "lost")
                before = get(client, ASKED)
                os.kill(database.owner.info.backend_pid, signal.SIGKILL)
            with closing(connected_again(database, steady_since)) as owner:
                survivor = replace(database, owner=owner)
                assert update(survivor, "done") == lost
                assert b"done" in Answer.of(ask(client, ASKED, before.tag)).body

    def test_a_restored_dump(self, empty_database: str) -> None:
        """Restored rows are new ones, so their tags are."""
        service_dsn = make_dsn(empty_database, user="medmitra_cases")
        with closing(psycopg2.connect(empty_database)) as owner:
            owner.autocommit = True
            database = CasesDatabase(LAYOUTS["own_table"], owner, empty_database, service_dsn)
            database.layout.create(owner)
            database.add(case(), case())
            with serving(database) as client:
                before = get(client, ASKED)
            columns = ", ".join(("id", *KEYS))
            dump = io.StringIO()
            with owner.cursor() as cursor:
                cursor.copy_expert(f"COPY medmitra.cases ({columns}) TO STDOUT", dump)
                execute(owner, "DROP SCHEMA medmitra CASCADE")
                database.layout.create(owner)
                dump.seek(0)
                cursor.copy_expert(f"COPY medmitra.cases ({columns}) FROM STDIN", dump)
            with serving(database) as client:
                assert Answer.of(ask(client, ASKED, before.tag))[1:] == before[1:]

    def test_a_copy_of_the_database(self, server_dsn: str, empty_database: str) -> None:
        """It has the same tags as long as it has the same cases: the server numbers transactions of both."""
        with closing(psycopg2.connect(empty_database)) as owner:
            owner.autocommit = True
            LAYOUTS["own_table"].create(owner)
            CasesDatabase(LAYOUTS["own_table"], owner, "", "").add(case())
        original = parse_dsn(empty_database)["dbname"]
        with new_database(server_dsn, options=f"TEMPLATE {original}") as copy:
            answers = []
            for dsn, status in [(empty_database, "here"), (copy, "there")]:
                with closing(psycopg2.connect(dsn)) as owner:
                    owner.autocommit = True
                    service_dsn = make_roles(server_dsn, owner, dsn)
                    database = CasesDatabase(LAYOUTS["own_table"], owner, dsn, service_dsn)
                    with serving(database) as client:
                        answers.append(get(client, ASKED))
                        update(database, status)
                        answers.append(get(client, ASKED))
        before, here, same, there = answers
        assert before == same
        assert len({before.tag, here.tag, there.tag}) == 3


def pid_of_wal_writer(database: CasesDatabase) -> int:
    ((pid,),) = execute(database.owner, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
    return int(pid)


def connected_again(database: CasesDatabase, steady_since: dt.datetime) -> PsycopgConnection:
    """Wait for the server to have crashed and recovered; returns its owner's new connection."""
    found: list[PsycopgConnection] = []

    def connect() -> bool:
        with suppress(psycopg2.OperationalError):
            connection = psycopg2.connect(database.owner_dsn)
            connection.autocommit = True
            if execute(connection, RESET) != [(steady_since,)]:
                found.append(connection)
        return bool(found)

    wait_until(connect)
    return found[0]


@pytest.mark.parametrize("is_known", [False, True], ids=["another tag", "its tag"])
@pytest.mark.parametrize("kind", ["inserts", "deletes"])
def test_a_write_at_any_moment(
    client: FlaskClient,
    database: CasesDatabase,
    filled: list[dict[str, Any]],
    asked: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    kind: str,
    is_known: bool,
) -> None:
    """The answer, headers included, is that of before or that of after, and so is its tag."""
    relation, last = database.layout.relation, filled[-1]["case_id"]

    def insert() -> None:
        database.add(*(case(status="pending", patient_age=3, patient_name="Zoe") for _ in range(3)))

    def delete() -> None:
        execute(database.owner, f"DELETE FROM {relation}")  # no case to go on after, either

    interruption = Interruption(monkeypatch)
    # Two that are empty before.
    for url in (*asked.values(), f"{ASKED}&limit=2&page=4", f"{ASKED}&after={last}&limit=2"):
        for number in itertools.count(1):
            before = get(client, url)
            interruption.plan(number, insert if kind == "inserts" else delete)
            response = ask(client, url, before.tag if is_known else '"x"')
            if not interruption.has_happened:
                assert number > 1
                interruption.plan(0, lambda: None)  # nor while the next is asked
                break
            after = ask(client, url)
            now = Answer.of(after) if after.status_code == 200 else None
            if response.status_code == 304:
                assert is_known
                assert response.headers["ETag"] == before.tag
            elif response.status_code == 400:
                assert now is None
            else:
                got = Answer.of(response)
                assert got[1:] == before[1:] or (now and got[1:] == now[1:])
                for other in (before, now):
                    assert other is None or got.tag != other.tag or got == other
            assert now is None or now.tag != before.tag or now == before
            if kind == "inserts":
                execute(database.owner, f"DELETE FROM {relation} WHERE patient_name = 'Zoe'")
            else:
                database.add(*filled)


class TestWithoutXmin:
    """A database in which the rows' versions cannot be read."""

    @pytest.fixture(autouse=True)
    def _no_xmin(self, database: CasesDatabase) -> Iterator[None]:
        execute(database.owner, "REVOKE SELECT (xmin) ON medmitra.cases FROM medmitra_cases")
        yield
        execute(database.owner, "GRANT SELECT (xmin) ON medmitra.cases TO medmitra_cases")

    @pytest.mark.parametrize("source", ["body"], indirect=True)
    def test_the_body_will_do(
        self,
        client: FlaskClient,
        database: CasesDatabase,
        asked: dict[str, str],
        filled: list[dict[str, Any]],
    ) -> None:
        before = {url: get(client, url) for url in asked.values()}
        for url, old in before.items():
            assert ask(client, url, old.tag).status_code == 304
            assert ask(client, url, old.tag, "HEAD").status_code == 304
        change(database, CHANGES["status"], **ids(filled))
        assert Answer.of(ask(client, ASKED, before[ASKED].tag)).body != before[ASKED].body

    def test_the_versions_will_not(self, database: CasesDatabase, asked: dict[str, str]) -> None:
        with serving(database) as client:
            for url in asked.values():
                assert ask(client, url).status_code == ask(client, url, "*").status_code == 500


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    with serve(
        layout_database.service_dsn,
        MEDMITRA_ADMIN_LISTEN="127.0.0.1:0",
    ) as server:
        yield server


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
class TestOnTheWire:
    @staticmethod
    def request(url: str, *tags: str, method: str = "GET") -> bytes:
        lines = "".join(f"If-None-Match: {tag}\r\n" for tag in tags)
        return f"{method} {url} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()

    def test_several_lines_are_one_list(self, server: Running, asked: dict[str, str]) -> None:
        for url in asked.values():
            tag = server.get(url)[0].headers["ETag"]
            with closing(server.connect()) as connection, connection.makefile("rb") as stream:
                connection.sendall(self.request(url, '"x"', f'W/"y", {tag}', '"z"'))
                assert receive(stream)[0] == 304
                connection.sendall(self.request(url, '"x"', "y", '"z"'))
                assert receive(stream)[0] == 200

    def test_a_long_list_of_tags(self, server: Running, asked: dict[str, str]) -> None:
        tag = server.get(asked["all"])[0].headers["ETag"]
        others = ", ".join(f'"{number:032x}"' for number in range(6_000))
        assert server.get(asked["all"], **{"If-None-Match": f"{others}, {tag}"})[0].status == 304
        assert server.get(asked["all"], **{"If-None-Match": others})[0].status == 200
        assert server.get(asked["all"], **{"If-None-Match": others * 2})[0].status == 431

    def test_only_headers_are_sent_and_the_connection_goes_on(
        self, server: Running, asked: dict[str, str]
    ) -> None:
        for url in asked.values():
            full, body = server.get(url)
            tag = full.headers["ETag"]
            with closing(server.connect()) as connection, connection.makefile("rb") as stream:
                # All at once: a byte too many, and the next answer could not be read.
                connection.sendall(
                    self.request(url, tag)
                    + self.request(url, tag, method="HEAD")
                    + self.request(url)
                    + self.request(url, "*")
                    + self.request(url, '"x"')
                )
                for method, status in [("GET", 304), ("HEAD", 304), ("GET", 200), ("GET", 304), ("GET", 200)]:
                    found, headers, received = receive(stream, method)
                    assert (found, received) == (status, body if status == 200 else b"")
                    left_out = set(full.headers) - set(headers)
                    assert left_out == ({"Content-Length", "Content-Type"} if status == 304 else set())
                    assert set(headers) <= set(full.headers)

    @pytest.mark.parametrize("version", ["HTTP/1.1\r\nConnection: close", "HTTP/1.0"])
    def test_nothing_follows_the_headers(self, server: Running, asked: dict[str, str], version: str) -> None:
        answer = server.send(f"GET {asked['all']} {version}\r\nHost: x\r\nIf-None-Match: *\r\n\r\n".encode())
        head, end, rest = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == b"304"
        assert b"Connection: close" in head
        assert (end, rest) == (b"\r\n\r\n", b"")

    def test_a_long_list(self, server: Running, database: CasesDatabase) -> None:
        database.add_many([DOCTOR], 5_000)
        full, body = server.get(ASKED)
        assert len(json.loads(body)["cases"]) == 5_000
        tag = full.headers["ETag"]
        with closing(server.connect()) as connection, connection.makefile("rb") as stream:
            connection.sendall(self.request(ASKED, tag) * 2 + self.request(ASKED))
            assert receive(stream)[0] == receive(stream)[0] == 304
            status, headers, received = receive(stream)
            assert (status, headers["ETag"], received) == (200, tag, body)

    def test_it_is_counted(self, server: Running, asked: dict[str, str]) -> None:
        counted = 'medmitra_http_request_seconds_count{route="/cases/all_cases",status="304"}'
        before = server.metric(counted), server.metric("medmitra_cases_returned_total")
        assert server.get(asked["all"], **{"If-None-Match": "*"})[0].status == 304
        wait_until(lambda: server.metric(counted) == before[0] + 1)
        assert server.metric("medmitra_cases_returned_total") == before[1]


def receive(stream: BinaryIO, method: str = "GET") -> tuple[int, Message, bytes]:
    """Read one answer of several; one that has no body ends with its header."""
    status = int(stream.readline().split()[1])
    headers = http.client.parse_headers(stream)
    if method == "HEAD" or status == 304:
        return status, headers, b""
    if "Content-Length" in headers:
        return status, headers, stream.read(int(headers["Content-Length"]))
    body = b""
    while size := int(stream.readline(), 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return status, headers, body
