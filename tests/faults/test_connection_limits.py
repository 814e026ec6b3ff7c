"""Postgres or a pooler accepts fewer connections than the service can use."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from medmitra_cases.testing.postgres import open_folder
from tests.faults.pgbouncer import pgbouncer
from tests.faults.postgres import Postgres
from tests.faults.service import clients, serving
from tests.support.processes import wait_until

pytestmark = pytest.mark.faults

ALLOWED = 4


Limit = Callable[[Postgres], AbstractContextManager[str]]


@contextmanager
def role_limit(postgres: Postgres) -> Iterator[str]:
    """Limit the connections of the role."""
    postgres.query(f"ALTER ROLE medmitra_cases CONNECTION LIMIT {ALLOWED}")
    try:
        yield postgres.service_dsn
    finally:
        postgres.query("ALTER ROLE medmitra_cases CONNECTION LIMIT -1")


@contextmanager
def max_connections(postgres: Postgres) -> Iterator[str]:
    """Take all other connections of the server as another role."""
    postgres.query("CREATE ROLE other LOGIN")
    ((free,),) = postgres.query(
        "SELECT current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int - count(*)"
        " FROM pg_stat_activity WHERE datid IS NOT NULL"
    )
    with ExitStack() as stack:
        for _number in range(free + 1 - ALLOWED):  # this query's own session has ended
            stack.enter_context(closing(psycopg2.connect(make_dsn(postgres.dsn, user="other"))))
        yield postgres.service_dsn
    wait_until(
        lambda: postgres.query("SELECT count(*) FROM pg_stat_activity WHERE usename = 'other'") == [(0,)]
    )
    postgres.query("DROP ROLE other")


@contextmanager
def session_pooler(postgres: Postgres) -> Iterator[str]:
    """Lend sessions to clients for as long as they stay connected."""
    more = f"pool_mode = session\ndefault_pool_size = {ALLOWED}"
    with open_folder() as folder, pgbouncer(folder, postgres.dsn, more=more) as port:
        yield make_dsn(postgres.service_dsn, host="127.0.0.1", port=port)


@pytest.mark.parametrize("limit", [role_limit, max_connections, session_pooler])
def test_no_request_fails_and_the_service_stays_ready(postgres: Postgres, limit: Limit) -> None:
    with limit(postgres) as dsn, serving(dsn, MEDMITRA_THREADS="8") as server, clients(server.port) as load:
        for _ in range(5):
            load.wait_for(200)
            assert server.ask_admin("/readyz")[0] == 200
        load.stop()
        assert load.failed == []
        assert len(postgres.backends) == ALLOWED
