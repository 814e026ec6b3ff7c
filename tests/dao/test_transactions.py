"""How the statements of a transaction are sent: in one string, or one by one."""

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.fetch import fetch_version
from medmitra_cases.dao.statements import SELECT_CASES, SET_LOCAL, BoundQuery
from medmitra_cases.dao.transactions import transaction
from medmitra_cases.dao.whole import fetch_cases
from medmitra_cases.database.connection import Connection, connect
from medmitra_cases.models import CaseQuery
from tests.support.factories import DOCTOR, CasesDatabase, case, execute

BOUND = BoundQuery(CaseQuery(DOCTOR), DOCTOR, True)

one_by_one = pytest.mark.parametrize("layout_database", ["marked_as_distributed"], indirect=True)


@pytest.fixture
def service(database: CasesDatabase) -> Iterator[Connection]:
    """A connection with the role of the service, which limits the time of its statements."""
    with closing(connect(database.service_dsn)) as connection:
        connection.statement_limit = "SET LOCAL statement_timeout = '2s'"
        yield connection


def last_string(connection: Connection) -> str:
    with transaction(connection, BOUND.statements.read, BOUND.parameters()) as cursor:
        return (cursor.query or b"").decode()


@pytest.mark.parametrize("layout_database", ["own_table", "existing_table", "partitioned"], indirect=True)
def test_a_request_is_one_string(service: Connection) -> None:
    assert last_string(service).count("SET LOCAL") == SET_LOCAL.count("SET LOCAL") + 1


@one_by_one
def test_a_query_of_a_distributed_table_is_sent_without_set_local(service: Connection) -> None:
    sent = last_string(service)
    assert sent.startswith(SELECT_CASES[:20])
    assert "SET LOCAL" not in sent


@one_by_one
def test_statements_sent_one_by_one_are_one_transaction(service: Connection) -> None:
    statements = (
        *BOUND.statements.read,
        "SELECT current_setting('statement_timeout'), current_setting('medmitra.user_id')",
    )
    with transaction(service, statements, BOUND.parameters()) as cursor:
        assert cursor.fetchall() == [("2s", DOCTOR)]
    assert service.is_reusable
    assert execute(service, "SELECT current_setting('medmitra.user_id')") == [("",)]


@one_by_one
def test_a_connection_is_reusable_after_statements_sent_one_by_one(
    database: CasesDatabase, service: Connection
) -> None:
    database.add(case())
    whole = fetch_cases(service, BOUND, 10)
    batches = CaseBatches(service, BOUND, 10)
    assert whole is not None
    assert [cases.rows[0][:9] for cases in batches] == [whole[0].rows[0][:9]]
    assert batches.version == whole[1] == fetch_version(service, BOUND)
    with pytest.raises(psycopg2.errors.DivisionByZero), transaction(service, ("SELECT 1 / 0",), {}):
        pass
    assert service.is_reusable


@pytest.mark.parametrize("layout_database", ["own_table", "marked_as_distributed"], indirect=True)
def test_batches_without_row_versions_can_be_the_first_read_of_a_connection(
    database: CasesDatabase, service: Connection
) -> None:
    database.add(case())
    batches = CaseBatches(service, BOUND._replace(row_versions=False), 10)
    assert [len(cases.rows) for cases in batches] == [1]
