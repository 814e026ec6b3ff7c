"""Conditional requests: the server sends 304 if, and only if, the client has the current response."""

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
CASES_URL = URL + DOCTOR
OTHER = DOCTOR[:-1] + "7"

# Queries for the five cases of ``filled``. {second} is the id of the second case.
QUERIES = {
    "all": CASES_URL,
    "filtered": f"{CASES_URL}&status=pending",
    "sorted": f"{CASES_URL}&sort_by=patient_name&sort_order=desc",
    "first page": f"{CASES_URL}&limit=2",
    "page by number": f"{CASES_URL}&sort_by=patient_age&limit=2&page=2",
    "filtered page": f"{CASES_URL}&status=pending&limit=2",
    "past the last page": f"{CASES_URL}&limit=2&page=9",
    "reverse order": f"{CASES_URL}&sort_order=desc&limit=3",
    "after a cursor": f"{CASES_URL}&after={{second}}",
    "page after a cursor": f"{CASES_URL}&after={{second}}&limit=2",
}


class Response(NamedTuple):
    """The parts of a response that a client keeps."""

    tag: str
    body: bytes
    total: str | None
    link: str | None

    @classmethod
    def of(cls, response: TestResponse) -> "Response":
        with response:
            assert response.status_code == 200, response.data
            headers = response.headers
            return cls(headers["ETag"], response.data, headers.get("X-Total-Count"), headers.get("Link"))


@pytest.fixture(params=["auto", "body"])
def source(request: pytest.FixtureRequest) -> str:
    """The source of the ETags."""
    source: str = request.param
    return source


@pytest.fixture(params=["complete", "streamed"])
def transfer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the service sends lists: complete, or streamed in chunks."""
    if request.param == "streamed":
        monkeypatch.setattr(cases, "WHOLE_CASES", 1)
        monkeypatch.setattr(cases, "CHUNK_CASES", 2)
    transfer: str = request.param
    return transfer


@pytest.fixture
def filled(database: CasesDatabase) -> list[dict[str, Any]]:
    """Five cases of ``DOCTOR``, three of them pending."""
    inserted = [
        case(status=status, patient_age=age)
        for status, age in [("pending", 5), ("completed", 3), ("pending", 4), ("failed", 1), ("pending", 2)]
    ]
    database.add(*inserted)
    return inserted


@pytest.fixture
def urls(filled: list[dict[str, Any]]) -> dict[str, str]:
    """The URLs of ``QUERIES``, by name."""
    return {name: url.format(second=filled[1]["case_id"]) for name, url in QUERIES.items()}


@contextmanager
def serving(database: CasesDatabase, **variables: str) -> Iterator[FlaskClient]:
    """Start a service and yield a client of it."""
    with client_on(database.service_dsn, **variables) as client:
        yield client


@pytest.fixture
def client(database: CasesDatabase, source: str, transfer: str) -> Iterator[FlaskClient]:  # noqa: ARG001
    """A client of a service with this ``source`` of ETags and this ``transfer`` of lists."""
    with serving(database, MEDMITRA_ETAG_SOURCE=source) as client:
        yield client


def send(client: FlaskClient, url: str, tags: str | None = None, method: str = "GET") -> TestResponse:
    """Send a request with these tags and a fixed request id; returns the response after reading all of it."""
    headers = {"X-Request-ID": "the-same"} | ({} if tags is None else {"If-None-Match": tags})
    response = client.open(url, method=method, headers=headers)
    with response:
        response.get_data()
    return response


def get(client: FlaskClient, url: str) -> Response:
    return Response.of(client.get(url))


class TestEntityTags:
    def test_every_200_has_a_strong_etag(self, client: FlaskClient, urls: dict[str, str]) -> None:
        for url in urls.values():
            full, head = send(client, url), send(client, url, method="HEAD")
            (tag,) = full.headers.getlist("ETag")
            assert re.fullmatch(r'"[\x21\x23-\x7e]+"', tag)
            assert full.status_code == head.status_code == 200
            assert (dict(head.headers), head.data) == (dict(full.headers), b"")

    def test_an_empty_list_has_an_etag(self, client: FlaskClient) -> None:
        first, second = (get(client, URL + doctor[:-1] + "0") for doctor in (DOCTOR, "f" + DOCTOR[1:]))
        assert first.body == second.body == b'{"cases":[]}'
        assert first.tag != second.tag
        assert send(client, URL + DOCTOR[:-1] + "0", first.tag).status_code == 304

    def test_an_error_has_no_etag(self, client: FlaskClient) -> None:
        for url in (URL, f"{CASES_URL}&limit=0", f"{CASES_URL}&after={OTHER}"):
            response = send(client, url, "*")
            assert response.status_code == 400
            assert "ETag" not in response.headers

    def test_each_query_has_its_own_etag(self, client: FlaskClient, urls: dict[str, str]) -> None:
        same = ("&min_age=0", "&max_age=99", "&search=a", "&start_date=2026-01-01", "&limit=100", "&limit=99")
        all_urls = [*urls.values(), *(f"{CASES_URL}{parameter}" for parameter in same), URL + OTHER]
        tags = [get(client, url).tag for url in all_urls]
        for url, tag in zip(all_urls, tags, strict=True):
            assert tags.count(tag) == 1
            others = ", ".join(other for other in tags if other != tag)
            assert send(client, url, others).status_code == 200


MATCHING = [
    "{tag}",
    "W/{tag}",
    '"x", {tag}',
    '{tag},"y"',
    ' W/"x" ,, "", W/{tag}\t,',
    '"unclosed, {tag}',
    '"a,b", {tag}',
    ", ".join(f'"{number}"' for number in range(5_000)) + ", {tag}",
    # As proxies change the tag of a response that they compress.
    *('"{unquoted}-gzip"', 'W/"{unquoted}-br"', '"x", "{unquoted}--gzip"', '"a-zstd", "{unquoted}-deflate"'),
    "{unquoted}",
    "*",
]
NOT_MATCHING = [
    *('"x"', 'W/"x"', '"x", W/"y"', "", " ", ",", '"', '""', "W/", '"*"', '"x", *', "**", "\xff", '"\xff"'),
    *(
        "{unquoted}x",
        '"{unquoted}',
        '"{upper}"',
        '"{half}"',
        '"{unquoted}-x"',
        '"-gzip"',
        '"{half}-gzip"',
        "w{tag}",
        '"x{unquoted}"',
        "x" * 100_000,
    ),
]


def fill_in(pattern: str, tag: str) -> str:
    """Fill in the tag; returns a value of ``If-None-Match``."""
    unquoted = tag.strip('"')
    return (
        pattern.replace("{tag}", tag)
        .replace("{unquoted}", unquoted)
        .replace("{upper}", unquoted.upper())
        .replace("{half}", unquoted[: len(unquoted) // 2])
    )


def test_a_304_has_the_headers_of_the_200_and_no_body(client: FlaskClient, urls: dict[str, str]) -> None:
    for url in urls.values():
        full = send(client, url)
        for if_none_match, method in itertools.product((full.headers["ETag"], "*"), ("GET", "HEAD")):
            response = send(client, url, if_none_match, method)
            assert (response.status_code, response.data) == (304, b"")
            omitted = ("Content-Type", "Content-Length")
            headers = dict(response.headers)
            assert headers == {name: value for name, value in full.headers.items() if name not in omitted}
            assert {"ETag", "Cache-Control", "Vary", "X-Content-Type-Options", "X-Request-ID"} < set(headers)
            assert ("X-Total-Count" in headers) == ("Link" in headers) == ("limit" in url)


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
@pytest.mark.parametrize("transfer", ["complete"], indirect=True)
class TestIfNoneMatch:
    @pytest.mark.parametrize("pattern", MATCHING)
    def test_a_matching_value_gets_a_304(
        self, client: FlaskClient, urls: dict[str, str], pattern: str
    ) -> None:
        for url in (urls["all"], urls["page after a cursor"]):
            assert send(client, url, fill_in(pattern, get(client, url).tag)).status_code == 304

    @pytest.mark.parametrize("pattern", NOT_MATCHING)
    def test_any_other_value_gets_a_200(
        self, client: FlaskClient, urls: dict[str, str], pattern: str
    ) -> None:
        for url in (urls["all"], urls["page after a cursor"]):
            full = get(client, url)
            assert Response.of(send(client, url, fill_in(pattern, full.tag))) == full


@pytest.mark.parametrize("source", ["auto"], indirect=True)
def test_a_304_reads_no_cases(
    client: FlaskClient, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {url: get(client, url).tag for url in urls.values()}
    for module, name in [
        (reader, "fetch_cases"),
        (reader, "CaseBatches"),
        (CaseSchema, "dump_rows"),
    ]:
        monkeypatch.setattr(module, name, None)
    sizes: list[int] = []

    def fetch_and_count(cursor: _Cursor) -> list[tuple[Any, ...]]:
        rows = fetchall(cursor)
        sizes.append(len(rows))
        return rows

    fetchall = psycopg2.extensions.cursor.fetchall
    monkeypatch.setattr(_Cursor, "fetchall", fetch_and_count, raising=False)
    for url, tag in tags.items():
        assert send(client, url, tag).status_code == 304
        assert send(client, url, '"x"').status_code == 500
    assert set(sizes) == {1}  # only the version


# Changes of a doctor's cases, each in one transaction. {owner} is the column of the doctor's id; {first},
# {second}, {last} and {new} are case ids.
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
    "delete all but one": ["DELETE FROM {relation} WHERE {owner} = '{doctor}' AND case_id <> '{second}'"],
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
    "move to the end": [f"{SET}id = DEFAULT WHERE case_id = '{{first}}'"],
    "move to another doctor": [f"{SET}{{owner}} = '{{other}}' WHERE case_id = '{{last}}'"],
    "delete and insert": [
        "WITH gone AS (DELETE FROM {relation} WHERE case_id = '{last}' RETURNING *)"
        " INSERT INTO {relation} OVERRIDING SYSTEM VALUE"
        " SELECT id + 1000000, '{new}', {owner}, patient_name, patient_age, patient_gender, case_summary,"
        " status, created_at, updated_at FROM gone"
    ],
    "delete and insert with the same id": [
        "CREATE TEMPORARY TABLE gone ON COMMIT DROP AS SELECT * FROM {relation} WHERE case_id = '{last}'",
        "DELETE FROM {relation} WHERE case_id = '{last}'",
        "INSERT INTO {relation} OVERRIDING SYSTEM VALUE"
        " SELECT id, case_id, {owner}, 'Zoe', patient_age, patient_gender, case_summary, status, created_at,"
        " updated_at FROM gone",
    ],
    "swap cases with another doctor": [
        f"{SET}{{owner}} = '{{other}}' WHERE case_id = '{{last}}'",
        f"{SET}{{owner}} = '{{doctor}}' WHERE {{owner}} = '{{other}}' AND case_id <> '{{last}}'",
    ],
    "update twice": [f"{SET}status = 'x'{SECOND}", f"{SET}status = 'y'{SECOND}"],
}


def change(database: CasesDatabase, statements: list[str], **values: str) -> None:
    """Run statements in one transaction, without the trigger that sets updated_at."""
    script = ";\n".join(["BEGIN", "SET LOCAL session_replication_role = replica", *statements, "COMMIT"])
    names = {"relation": database.layout.relation, "owner": database.layout.owner_column}
    execute(database.owner, script.format(**names, doctor=DOCTOR, other=OTHER, **values))


def case_ids(filled: list[dict[str, Any]]) -> dict[str, str]:
    first, second, *_, last = (columns["case_id"] for columns in filled)
    return {"first": first, "second": second, "last": last, "new": case()["case_id"]}


class TestChanges:
    @pytest.mark.parametrize("name", CHANGES)
    def test_a_change_of_the_response_changes_the_etag(
        self,
        client: FlaskClient,
        database: CasesDatabase,
        filled: list[dict[str, Any]],
        urls: dict[str, str],
        name: str,
    ) -> None:
        before = {url: get(client, url) for url in urls.values()}
        change(database, CHANGES[name], **case_ids(filled))
        assert get(client, CASES_URL).body != before[CASES_URL].body
        for url, old in before.items():
            response = client.get(url)
            if response.status_code == 400:  # the cursor case is gone
                continue
            new = Response.of(response)
            if new[1:] != old[1:]:
                assert new.tag != old.tag
                assert Response.of(send(client, url, old.tag)) == new

    def test_an_update_to_equal_values_keeps_only_the_etag_of_the_body(
        self, client: FlaskClient, database: CasesDatabase, urls: dict[str, str], source: str
    ) -> None:
        """The update writes new row versions. The ETag is new unless its source is the body."""
        before = {url: get(client, url) for url in urls.values()}
        change(database, [SET + "status = status"])
        for url, old in before.items():
            new = get(client, url)
            assert new[1:] == old[1:]
            assert (new.tag == old.tag) == (source == "body" or url == urls["past the last page"])

    def test_the_etag_follows_a_case_to_another_doctor_and_back(
        self, client: FlaskClient, database: CasesDatabase, filled: list[dict[str, Any]]
    ) -> None:
        own, others = get(client, CASES_URL), get(client, URL + OTHER)
        change(database, CHANGES["move to another doctor"], **case_ids(filled))
        assert send(client, CASES_URL, own.tag).status_code == 200
        without_case = get(client, CASES_URL)
        assert send(client, URL + OTHER, others.tag).status_code == 200
        change(database, [SET + "{owner} = '{doctor}' WHERE case_id = '{last}'"], **case_ids(filled))
        assert Response.of(send(client, CASES_URL, without_case.tag))[1:] == own[1:]
        assert get(client, URL + OTHER)[1:] == others[1:]
        assert send(client, URL + OTHER, others.tag).status_code == 304  # the same row versions as before

    def test_a_change_of_only_the_total_changes_the_etag(
        self, client: FlaskClient, database: CasesDatabase, urls: dict[str, str]
    ) -> None:
        before = get(client, urls["first page"])
        database.add(case())
        after = Response.of(send(client, urls["first page"], before.tag))
        assert after.body == before.body
        assert (before.total, after.total) == ("5", "6")
        assert before.link == after.link  # five cases and six cases both make three pages of two
        assert before.tag != after.tag

    def test_a_change_outside_the_response_keeps_the_etag(
        self, client: FlaskClient, database: CasesDatabase, urls: dict[str, str]
    ) -> None:
        before = {url: get(client, url) for url in urls.values()}
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
            assert send(client, url, old.tag).status_code == 304

    def test_a_change_of_a_case_outside_the_filter_keeps_the_etag(
        self,
        client: FlaskClient,
        database: CasesDatabase,
        urls: dict[str, str],
        filled: list[dict[str, Any]],
    ) -> None:
        names = ("filtered", "filtered page")
        before = {urls[name]: get(client, urls[name]) for name in names}
        change(database, CHANGES["patient_name"], **case_ids(filled))
        for url, old in before.items():
            assert send(client, url, old.tag).status_code == 304


@contextmanager
def changed_code(owner: object, name: str, value: object) -> Iterator[None]:
    """Replace code or SQL of the service, and recompute the part of the ETag that depends on them."""
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


class TestChangesOfTheService:
    def test_other_code_changes_the_etag(self, client: FlaskClient, urls: dict[str, str]) -> None:
        before = {url: get(client, url) for url in urls.values()}
        read = Path.read_bytes

        def read_changed(path: Path) -> bytes:
            return read(path) + (b"# changed" if path.name == "case.py" else b"")

        with changed_code(Path, "read_bytes", read_changed):
            for url, old in before.items():
                assert Response.of(send(client, url, old.tag))[1:] == old[1:]
        for url, old in before.items():
            assert send(client, url, old.tag).status_code == 304

    def test_other_code_in_any_folder_changes_the_etag(self, tmp_path: Path) -> None:
        """Change one file of each folder, one after the other, in a copy of the package."""
        package = tmp_path / "medmitra_cases"
        shutil.copytree(Path(medmitra_cases.__file__).parent, package)
        shutil.copytree(sql_directory(), package / "sql", dirs_exist_ok=True)
        finished = run_program(
            [sys.executable, "-c", CHANGE_EACH_FOLDER, package],
            {"PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
        )
        assert finished.returncode == 0, finished.stderr
        tags = finished.stdout.split()
        folders = {path.parent for path in package.rglob("*.py")}
        assert len(tags) == len(set(tags)) == 1 + len(folders)

    def test_adapted_sql_changes_the_etag(self, client: FlaskClient, tmp_path: Path) -> None:
        before = get(client, CASES_URL)
        shutil.copytree(sql_directory(), tmp_path / "sql")
        with (tmp_path / "sql" / "select_cases.sql").open("a") as file:
            file.write("-- adapted\n")
        with changed_code(database_wing, "sql_directory", lambda: tmp_path / "sql"):
            assert send(client, CASES_URL, before.tag).status_code == 200

    def test_the_other_source_of_etags_changes_the_etag(
        self, database: CasesDatabase, urls: dict[str, str]
    ) -> None:
        with (
            serving(database) as by_rows,
            serving(database, MEDMITRA_ETAG_SOURCE="body") as by_body,
        ):
            for url in urls.values():
                assert send(by_body, url, get(by_rows, url).tag).status_code == 200
                assert send(by_rows, url, get(by_body, url).tag).status_code == 200

    def test_a_restart_keeps_the_etag(
        self, database: CasesDatabase, urls: dict[str, str], source: str
    ) -> None:
        """Another process or instance of the service sends the same ETags."""
        with serving(database, MEDMITRA_ETAG_SOURCE=source) as client:
            before = {url: get(client, url) for url in urls.values()}
        with serving(database, MEDMITRA_ETAG_SOURCE=source) as client:
            for url, old in before.items():
                assert send(client, url, old.tag).status_code == 304


@contextmanager
def changed_schema(database: CasesDatabase, statement: str, undo: str) -> Iterator[None]:
    """Run a statement before the block, and another one after it."""
    execute(database.owner, statement)
    try:
        yield
    finally:
        execute(database.owner, undo)


# The view after a change by the operator. The change writes no row.
VIEW = read_sql("existing_table")
UPPER_CASE_VIEW = VIEW.replace("    status::text AS", "    upper(status) AS")
SWAP_COLUMNS = "; ".join(
    f"ALTER TABLE medmitra.cases RENAME {old} TO {new}"
    for old, new in [("status", "x"), ("patient_gender", "status"), ("x", "patient_gender")]
)
# The order stays the same in the test databases, which use C.UTF-8. It can change in other locales.
SET_COLLATION = 'ALTER TABLE medmitra.cases ALTER patient_name TYPE text COLLATE "{}"'


class Interruption:
    """An action that runs once, before one of the statements of the service (counted from 1)."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._countdown = 0
        execute_all, fetch = _Cursor.execute, _Cursor.fetchmany

        def execute_each(cursor: _Cursor, query: str, values: Any = None) -> None:
            # With autocommit, a string of several statements is one transaction and counts once.
            parts = [query] if cursor.connection.autocommit else re.split(r";\n(?=-- name: |DECLARE )", query)
            for statement in parts:
                self._count()
                execute_all(cursor, statement, values)

        def fetch_some(cursor: _Cursor, size: int | None = None) -> Any:
            self._count()
            return fetch(cursor, size)

        patch.setattr(_Cursor, "execute", execute_each)
        patch.setattr(_Cursor, "fetchmany", fetch_some)

    def schedule(self, number: int, action: Callable[[], object]) -> None:
        self._countdown, self._action = number, action

    def _count(self) -> None:
        self._countdown -= 1
        if self._countdown == 0:
            self._action()

    @property
    def has_run(self) -> bool:
        return self._countdown <= 0


class TestChangesOfTheSchema:
    """The ETag covers the definition that the table or view has when the service connects."""

    @pytest.mark.parametrize("layout_database", ["existing_table"], indirect=True)
    def test_another_view_changes_the_etag(
        self, database: CasesDatabase, urls: dict[str, str], source: str
    ) -> None:
        with serving(database, MEDMITRA_ETAG_SOURCE=source) as client:
            before = {url: get(client, url) for url in urls.values()}
        with (
            changed_schema(database, UPPER_CASE_VIEW, VIEW),
            serving(database, MEDMITRA_ETAG_SOURCE=source) as client,
        ):
            assert b"PENDING" in get(client, CASES_URL).body
            for url, old in before.items():
                new = Response.of(send(client, url, old.tag)) if b'"pending"' in old.body else None
                assert new is None or new.body != old.body

    @pytest.mark.parametrize("layout_database", ["existing_table"], indirect=True)
    @pytest.mark.usefixtures("filled")
    def test_a_change_below_the_view_changes_the_etag(self, database: CasesDatabase) -> None:
        below = VIEW.replace("medmitra.cases AS", "medmitra.below AS")
        with changed_schema(database, below, "DROP VIEW medmitra.below"):
            columns = ", ".join(("id", *KEYS, "xmin"))
            above = f"CREATE OR REPLACE VIEW medmitra.cases AS SELECT {columns} FROM medmitra.below"
            with changed_schema(database, above, VIEW):
                with serving(database) as client:
                    before = get(client, CASES_URL)
                execute(database.owner, UPPER_CASE_VIEW.replace("medmitra.cases AS", "medmitra.below AS"))
                with serving(database) as client:
                    assert Response.of(send(client, CASES_URL, before.tag)).body != before.body

    @pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
    def test_swapped_column_names_change_the_etag(
        self, database: CasesDatabase, urls: dict[str, str]
    ) -> None:
        with serving(database) as client:
            before = get(client, urls["all"])
        with changed_schema(database, SWAP_COLUMNS, SWAP_COLUMNS), serving(database) as client:
            assert Response.of(send(client, urls["all"], before.tag)).body != before.body

    @pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
    def test_another_collation_changes_the_etag(self, database: CasesDatabase, urls: dict[str, str]) -> None:
        """The change rewrites no row, but it can change the order."""
        with serving(database) as client:
            before = get(client, urls["sorted"])
        with (
            changed_schema(database, SET_COLLATION.format("C"), SET_COLLATION.format("default")),
            serving(database) as client,
        ):
            assert send(client, urls["sorted"], before.tag).status_code == 200

    @pytest.mark.parametrize("layout_database", ["existing_table"], indirect=True)
    def test_a_view_replaced_during_a_request_changes_the_etag(
        self, database: CasesDatabase, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a restart, the ETag of the first response never stands for another body."""
        interruption = Interruption(monkeypatch)
        for number in itertools.count(1):
            with changed_schema(database, VIEW, VIEW):
                with serving(database) as client:
                    interruption.schedule(number, lambda: execute(database.owner, UPPER_CASE_VIEW))
                    first = get(client, urls["all"])
                if not interruption.has_run:
                    assert number > 2
                    break
                with serving(database) as client:
                    now = get(client, urls["all"])
                assert b"PENDING" in now.body
                assert now.tag != first.tag or now.body == first.body


@contextmanager
def running_postgres(folder: Path) -> Iterator[CasesDatabase]:
    """Start a separate Postgres on the data in the folder."""
    with embedded_postgres(folder) as dsn, closing(psycopg2.connect(dsn)) as owner:
        owner.autocommit = True
        yield CasesDatabase(LAYOUTS["own_table"], owner, dsn, make_dsn(dsn, user="medmitra_cases"))


def update(database: CasesDatabase, status: str) -> str:
    """Change all cases; returns the id of that transaction."""
    execute(database.owner, f"UPDATE medmitra.cases SET status = '{status}'")
    ((transaction_id,),) = execute(database.owner, "SELECT DISTINCT xmin FROM medmitra.cases")
    return str(transaction_id)


# When the statistics were last reset. A crash resets them.
SELECT_RESET_TIME = "SELECT pg_stat_get_bgwriter_stat_reset_time()"


class TestRecoveredServers:
    """After a restored backup or a crash, Postgres gives the ids of lost transactions to new ones."""

    def test_a_restored_backup_changes_the_etag(self, folder: Path) -> None:
        with running_postgres(folder) as database:
            database.layout.create(database.owner)
            database.add(case())
        (data,) = folder.glob("data-*")
        backup = folder / "backup"
        subprocess.run(["cp", "-a", data, backup], check=True)
        with running_postgres(folder) as database, serving(database) as client:
            lost = update(database, "lost")
            before = get(client, CASES_URL)
        shutil.rmtree(data)
        backup.rename(data)
        with running_postgres(folder) as database, serving(database) as client:
            assert update(database, "done") == lost
            assert b"done" in Response.of(send(client, CASES_URL, before.tag)).body

    def test_a_crash_that_loses_transactions_changes_the_etag(self, folder: Path) -> None:
        """If commits do not wait for the disk, a killed session makes Postgres lose some of them."""
        with running_postgres(folder) as database, serving(database) as client:
            database.layout.create(database.owner)
            database.add(case())
            for setting in ("synchronous_commit = off", "wal_writer_delay = '10s'"):
                execute(database.owner, f"ALTER SYSTEM SET {setting}")
            execute(database.owner, "SELECT pg_reload_conf()")
            wait_until(lambda: execute(database.owner, "SHOW wal_writer_delay") == [("10s",)])
            execute(database.owner, "CHECKPOINT")
            ((reset_time,),) = execute(database.owner, SELECT_RESET_TIME)
            with frozen(pid_of_wal_writer(database)):  # it would write the commits to disk
                lost = update(database, "lost")
                before = get(client, CASES_URL)
                os.kill(database.owner.info.backend_pid, signal.SIGKILL)
            with closing(reconnect(database, reset_time)) as owner:
                recovered = replace(database, owner=owner)
                assert update(recovered, "done") == lost
                assert b"done" in Response.of(send(client, CASES_URL, before.tag)).body

    def test_a_restored_dump_changes_the_etag(self, empty_database: str) -> None:
        """Restored rows have new versions, so the ETag is new, too."""
        service_dsn = make_dsn(empty_database, user="medmitra_cases")
        with closing(psycopg2.connect(empty_database)) as owner:
            owner.autocommit = True
            database = CasesDatabase(LAYOUTS["own_table"], owner, empty_database, service_dsn)
            database.layout.create(owner)
            database.add(case(), case())
            with serving(database) as client:
                before = get(client, CASES_URL)
            columns = ", ".join(("id", *KEYS))
            dump = io.StringIO()
            with owner.cursor() as cursor:
                cursor.copy_expert(f"COPY medmitra.cases ({columns}) TO STDOUT", dump)
                execute(owner, "DROP SCHEMA medmitra CASCADE")
                database.layout.create(owner)
                dump.seek(0)
                cursor.copy_expert(f"COPY medmitra.cases ({columns}) FROM STDIN", dump)
            with serving(database) as client:
                assert Response.of(send(client, CASES_URL, before.tag))[1:] == before[1:]

    def test_a_copied_database_has_the_same_etag_until_a_change(
        self, server_dsn: str, empty_database: str
    ) -> None:
        """Both databases use the same sequence of transaction ids, so a change gives each a new ETag."""
        with closing(psycopg2.connect(empty_database)) as owner:
            owner.autocommit = True
            LAYOUTS["own_table"].create(owner)
            CasesDatabase(LAYOUTS["own_table"], owner, "", "").add(case())
        original = parse_dsn(empty_database)["dbname"]
        with new_database(server_dsn, options=f"TEMPLATE {original}") as copy:
            responses = []
            for dsn, status in [(empty_database, "original"), (copy, "copy")]:
                with closing(psycopg2.connect(dsn)) as owner:
                    owner.autocommit = True
                    service_dsn = make_roles(server_dsn, owner, dsn)
                    database = CasesDatabase(LAYOUTS["own_table"], owner, dsn, service_dsn)
                    with serving(database) as client:
                        responses.append(get(client, CASES_URL))
                        update(database, status)
                        responses.append(get(client, CASES_URL))
        before, changed_original, same, changed_copy = responses
        assert before == same
        assert len({before.tag, changed_original.tag, changed_copy.tag}) == 3


def pid_of_wal_writer(database: CasesDatabase) -> int:
    ((pid,),) = execute(database.owner, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
    return int(pid)


def reconnect(database: CasesDatabase, reset_time: dt.datetime) -> PsycopgConnection:
    """Wait until the server has crashed and recovered; returns a new connection of its owner."""
    found: list[PsycopgConnection] = []

    def connect() -> bool:
        with suppress(psycopg2.OperationalError):
            connection = psycopg2.connect(database.owner_dsn)
            connection.autocommit = True
            if execute(connection, SELECT_RESET_TIME) != [(reset_time,)]:
                found.append(connection)
        return bool(found)

    wait_until(connect)
    return found[0]


@pytest.mark.parametrize("is_current", [False, True], ids=["another ETag", "current ETag"])
@pytest.mark.parametrize("kind", ["inserts", "deletes"])
def test_a_response_never_mixes_the_states_before_and_after_a_write(
    client: FlaskClient,
    database: CasesDatabase,
    filled: list[dict[str, Any]],
    urls: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    kind: str,
    is_current: bool,
) -> None:
    """The body, the headers and the ETag are all from before the write, or all from after it."""
    relation, last = database.layout.relation, filled[-1]["case_id"]

    def insert() -> None:
        database.add(*(case(status="pending", patient_age=3, patient_name="Zoe") for _ in range(3)))

    def delete() -> None:
        execute(database.owner, f"DELETE FROM {relation}")  # this deletes the cursor case, too

    interruption = Interruption(monkeypatch)
    # The last two responses are empty before the write.
    for url in (*urls.values(), f"{CASES_URL}&limit=2&page=4", f"{CASES_URL}&after={last}&limit=2"):
        for number in itertools.count(1):
            before = get(client, url)
            interruption.schedule(number, insert if kind == "inserts" else delete)
            response = send(client, url, before.tag if is_current else '"x"')
            if not interruption.has_run:
                assert number > 1
                interruption.schedule(0, lambda: None)  # cancel it for the next URL
                break
            after = send(client, url)
            now = Response.of(after) if after.status_code == 200 else None
            if response.status_code == 304:
                assert is_current
                assert response.headers["ETag"] == before.tag
            elif response.status_code == 400:
                assert now is None
            else:
                received = Response.of(response)
                assert received[1:] == before[1:] or (now and received[1:] == now[1:])
                for other in (before, now):
                    assert other is None or received.tag != other.tag or received == other
            assert now is None or now.tag != before.tag or now == before
            if kind == "inserts":
                execute(database.owner, f"DELETE FROM {relation} WHERE patient_name = 'Zoe'")
            else:
                database.add(*filled)


class TestWithoutXmin:
    """The role of the service may not read the row versions (xmin)."""

    @pytest.fixture(autouse=True)
    def _no_xmin(self, database: CasesDatabase) -> Iterator[None]:
        execute(database.owner, "REVOKE SELECT (xmin) ON medmitra.cases FROM medmitra_cases")
        yield
        execute(database.owner, "GRANT SELECT (xmin) ON medmitra.cases TO medmitra_cases")

    def test_etags_of_the_body_need_no_xmin(
        self,
        client: FlaskClient,
        database: CasesDatabase,
        urls: dict[str, str],
        filled: list[dict[str, Any]],
    ) -> None:
        before = {url: get(client, url) for url in urls.values()}
        for url, old in before.items():
            assert send(client, url, old.tag).status_code == 304
            assert send(client, url, old.tag, "HEAD").status_code == 304
        change(database, CHANGES["status"], **case_ids(filled))
        assert Response.of(send(client, CASES_URL, before[CASES_URL].tag)).body != before[CASES_URL].body

    def test_etags_of_row_versions_need_xmin(self, database: CasesDatabase, urls: dict[str, str]) -> None:
        with serving(database, MEDMITRA_ETAG_SOURCE="rows") as client:
            for url in urls.values():
                assert send(client, url).status_code == send(client, url, "*").status_code == 500


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    with serve(
        layout_database.service_dsn,
        MEDMITRA_ADMIN_LISTEN="127.0.0.1:0",
    ) as server:
        yield server


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
class TestOverASocket:
    @staticmethod
    def request(url: str, *tags: str, method: str = "GET") -> bytes:
        lines = "".join(f"If-None-Match: {tag}\r\n" for tag in tags)
        return f"{method} {url} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()

    def test_several_header_lines_are_one_list(self, server: Running, urls: dict[str, str]) -> None:
        for url in urls.values():
            tag = server.get(url)[0].headers["ETag"]
            with closing(server.connect()) as connection, connection.makefile("rb") as stream:
                connection.sendall(self.request(url, '"x"', f'W/"y", {tag}', '"z"'))
                assert receive(stream)[0] == 304
                connection.sendall(self.request(url, '"x"', "y", '"z"'))
                assert receive(stream)[0] == 200

    def test_if_none_match_may_be_long(self, server: Running, urls: dict[str, str]) -> None:
        tag = server.get(urls["all"])[0].headers["ETag"]
        others = ", ".join(f'"{number:032x}"' for number in range(800))
        assert server.get(urls["all"], **{"If-None-Match": f"{others}, {tag}"})[0].status == 304
        assert server.get(urls["all"], **{"If-None-Match": others})[0].status == 200
        assert server.get(urls["all"], **{"If-None-Match": others * 2})[0].status == 431

    def test_a_304_has_no_body_and_keeps_the_connection(self, server: Running, urls: dict[str, str]) -> None:
        for url in urls.values():
            full, body = server.get(url)
            tag = full.headers["ETag"]
            with closing(server.connect()) as connection, connection.makefile("rb") as stream:
                # These are pipelined: an extra byte would make the next response unreadable.
                connection.sendall(
                    self.request(url, tag)
                    + self.request(url, tag, method="HEAD")
                    + self.request(url)
                    + self.request(url, "*")
                    + self.request(url, '"x"')
                )
                for method, status in [("GET", 304), ("HEAD", 304), ("GET", 200), ("GET", 304), ("GET", 200)]:
                    received_status, headers, received_body = receive(stream, method)
                    assert (received_status, received_body) == (status, body if status == 200 else b"")
                    omitted = set(full.headers) - set(headers)
                    assert omitted == ({"Content-Length", "Content-Type"} if status == 304 else set())
                    assert set(headers) <= set(full.headers)

    @pytest.mark.parametrize("version", ["HTTP/1.1\r\nConnection: close", "HTTP/1.0"])
    def test_no_bytes_follow_the_headers_of_a_304(
        self, server: Running, urls: dict[str, str], version: str
    ) -> None:
        response = server.send(f"GET {urls['all']} {version}\r\nHost: x\r\nIf-None-Match: *\r\n\r\n".encode())
        head, end, body = response.partition(b"\r\n\r\n")
        assert head.split()[1] == b"304"
        assert b"Connection: close" in head
        assert (end, body) == (b"\r\n\r\n", b"")

    def test_a_streamed_list_can_get_a_304(self, server: Running, database: CasesDatabase) -> None:
        database.add_many([DOCTOR], 5_000)
        full, body = server.get(CASES_URL)
        assert len(json.loads(body)["cases"]) == 5_000
        tag = full.headers["ETag"]
        with closing(server.connect()) as connection, connection.makefile("rb") as stream:
            connection.sendall(self.request(CASES_URL, tag) * 2 + self.request(CASES_URL))
            assert receive(stream)[0] == receive(stream)[0] == 304
            status, headers, received = receive(stream)
            assert (status, headers["ETag"], received) == (200, tag, body)

    def test_the_metrics_count_a_304(self, server: Running, urls: dict[str, str]) -> None:
        metric = 'medmitra_http_request_seconds_count{error="",route="/cases/all_cases",status="304"}'
        before = server.metric(metric), server.metric("medmitra_cases_returned_total")
        assert server.get(urls["all"], **{"If-None-Match": "*"})[0].status == 304
        wait_until(lambda: server.metric(metric) == before[0] + 1)
        assert server.metric("medmitra_cases_returned_total") == before[1]


def receive(stream: BinaryIO, method: str = "GET") -> tuple[int, Message, bytes]:
    """Read one of several responses. A 304 and a response to HEAD have no body."""
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
