"""A new password of the service's role, as docs/operations.md describes it."""

import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from tests.deploy.parts import PASSWORD, pgbouncer_process, write_userlist
from tests.faults.service import clients
from tests.support.factories import DOCTOR, CasesDatabase, execute
from tests.support.processes import COMMAND, Running, running_on

# running_on() forks while other threads run. Python warns about that since 3.12.
pytestmark = [pytest.mark.deploy, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

NEW_PASSWORD = "made up for the second part of the tests"


@pytest.mark.parametrize("pooled", [False, True], ids=["Postgres", "PgBouncer"])
def test_a_new_password_fails_no_request_except_behind_pgbouncer_until_the_next_login(
    folder: Path, password_database: CasesDatabase, *, pooled: bool
) -> None:
    database = password_database
    database.clear()
    database.add_many([DOCTOR], 50)
    with ExitStack() as stack:
        stack.callback(execute, database.owner, "ALTER ROLE medmitra_cases PASSWORD %s", [PASSWORD])
        dsn = database.service_dsn
        if pooled:
            dsn, pooler = stack.enter_context(pgbouncer_process(folder, database))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1_024))

        def start(dsn: str) -> Running:
            return stack.enter_context(running_on(listener, COMMAND, "serve", DATABASE_URL=dsn))

        old_server = start(dsn)
        load = stack.enter_context(clients(listener.getsockname()[1]))
        load.wait_for(500)
        execute(database.owner, "ALTER ROLE medmitra_cases PASSWORD %s", [NEW_PASSWORD])
        if pooled:
            write_userlist(folder, database)
            pooler.send_signal(signal.SIGHUP)
        else:
            load.wait_for(500)
        start(make_dsn(dsn, password=NEW_PASSWORD))
        assert old_server.end() == 0
        load.wait_for(100)
        after_restart = len(load.answers) if pooled else 0
        load.wait_for(500)
        load.stop()
        assert [answer for answer in load.answers[after_restart:] if answer.status != 200] == []
        with pytest.raises(psycopg2.OperationalError, match=r"password|SASL"):
            psycopg2.connect(dsn)
