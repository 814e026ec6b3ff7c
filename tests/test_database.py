"""Connections: one per thread, replaced when lost, found again after an outage."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg2.extensions import connection as Connection

from medmitra_cases import create_app
from medmitra_cases.app import DATABASE
from medmitra_cases.database import Database
from medmitra_cases.embedded import embedded_postgres
from medmitra_cases.errors import DatabaseUnavailable
from tests import factories
from tests.factories import DOCTOR, CasesDatabase, case, execute

ASKED = f"/cases/all_cases?user_id={DOCTOR}"
SESSIONS = "FROM pg_stat_activity WHERE usename = 'medmitra_cases' AND datname = current_database()"


def sessions(database: CasesDatabase) -> int:
    """How many connections the service holds, as Postgres sees it."""
    ((count,),) = execute(database.owner, f"SELECT count(*) {SESSIONS}")
    return int(count)


def backend_pid(connection: Connection) -> int:
    return connection.info.backend_pid


def test_first_request_after_all_backends_were_terminated(
    client: FlaskClient, database: CasesDatabase
) -> None:
    database.add(case())
    before = client.get(ASKED)
    execute(database.owner, f"SELECT pg_terminate_backend(pid, 5000) {SESSIONS}")
    after = client.get(ASKED)
    assert (after.status_code, after.data) == (200, before.data)
    assert sessions(database) == 1


def test_one_connection_per_thread_and_none_after_close(app: Flask, database: CasesDatabase) -> None:
    threads = 5
    all_in = threading.Barrier(threads)

    def ask() -> list[int]:
        all_in.wait()
        return [app.test_client().get(ASKED).status_code for _ in range(3)]

    with ThreadPoolExecutor(threads) as pool:
        answers = [pool.submit(ask) for _ in range(threads)]
        assert [answer.result() for answer in answers] == [[200] * 3] * threads
        assert sessions(database) == threads
        app.extensions[DATABASE].close()
        wait_until_sessions(database, 0)


def wait_until_sessions(database: CasesDatabase, count: int) -> None:
    """Postgres notices a closed connection in its own time, within milliseconds."""
    for _ in range(1000):
        if sessions(database) == count:
            return
        execute(database.owner, "SELECT pg_sleep(0.01)")
    assert sessions(database) == count


def test_connections_of_ended_threads_are_closed(app: Flask, database: CasesDatabase) -> None:
    thread = threading.Thread(target=lambda: app.test_client().get(ASKED))
    thread.start()
    thread.join()
    wait_until_sessions(database, 0)


def test_a_read_after_close_opens_again(client: FlaskClient, app: Flask, database: CasesDatabase) -> None:
    assert client.get(ASKED).status_code == 200
    app.extensions[DATABASE].close()
    assert client.get(ASKED).status_code == 200
    assert sessions(database) == 1


def test_the_connection_is_kept_from_read_to_read(database: CasesDatabase) -> None:
    with closing(Database(database.service_dsn, wait_seconds=0)) as reader:
        assert reader.read(backend_pid) == reader.read(backend_pid)


def test_no_transaction_is_left_open(client: FlaskClient, database: CasesDatabase) -> None:
    client.get(ASKED)
    assert execute(database.owner, f"SELECT state {SESSIONS}") == [("idle",)]


def test_the_service_names_itself_to_the_database(client: FlaskClient, database: CasesDatabase) -> None:
    client.get(ASKED)
    assert execute(database.owner, f"SELECT application_name {SESSIONS}") == [("medmitra-cases",)]


def test_text_is_unicode_whatever_the_url_says(database: CasesDatabase) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, client_encoding="LATIN1")
    with closing(Database(url, wait_seconds=0)) as reader:
        assert reader.read(lambda connection: execute(connection, "SELECT chr(32654)")) == [("美",)]


def test_a_database_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        reader = Database(f"host=127.0.0.1 port={mute.getsockname()[1]}", wait_seconds=0)
        with pytest.raises(DatabaseUnavailable):
            reader.read(backend_pid)


def test_the_url_has_the_last_word_on_timeouts(database: CasesDatabase) -> None:
    url = psycopg2.extensions.make_dsn(database.service_dsn, connect_timeout=7)
    with closing(Database(url, wait_seconds=0)) as reader:
        parameters = reader.read(lambda connection: connection.info.dsn_parameters)
    assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == ("7", "3000")


def test_text_is_unicode_whatever_the_servers_encoding(server_dsn: str) -> None:
    with closing(psycopg2.connect(server_dsn)) as server:
        server.autocommit = True
        execute(server, "DROP DATABASE IF EXISTS medmitra_test_latin1")
        execute(
            server,
            "CREATE DATABASE medmitra_test_latin1 TEMPLATE template0 ENCODING 'LATIN1'"
            " LOCALE_PROVIDER libc LOCALE 'C'",
        )
        try:
            dsn = psycopg2.extensions.make_dsn(server_dsn, dbname="medmitra_test_latin1")
            with closing(Database(dsn, wait_seconds=0)) as reader:
                assert reader.read(lambda connection: execute(connection, "SELECT chr(233)")) == [("é",)]
        finally:
            execute(server, "DROP DATABASE medmitra_test_latin1 WITH (FORCE)")


def test_starts_without_a_database_serves_when_it_appears_and_again_after_a_restart(folder: Path) -> None:
    with embedded_postgres(folder) as owner_dsn, closing(psycopg2.connect(owner_dsn)) as owner:
        owner.autocommit = True
        factories.LAYOUTS["own_table"].create(owner)
    url = psycopg2.extensions.make_dsn(owner_dsn, user="medmitra_cases")
    app = create_app(factories.settings(url, MEDMITRA_DATABASE_WAIT_SECONDS="0"))
    client = app.test_client()
    assert client.get(ASKED).status_code == 500
    with embedded_postgres(folder):
        assert client.get(ASKED).status_code == 200
    with embedded_postgres(folder):
        assert client.get(ASKED).status_code == 200
    assert client.get(ASKED).status_code == 500
    app.extensions[DATABASE].close()


def test_a_read_waits_for_a_database_that_comes_back(folder: Path) -> None:
    with embedded_postgres(folder) as dsn:
        pass
    reader = Database(dsn, wait_seconds=60)
    with closing(reader), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(reader.read, lambda connection: execute(connection, "SELECT 42"))
        with embedded_postgres(folder):
            assert answer.result() == [(42,)]
            pool.submit(reader.close).result()


def test_a_read_gives_up_after_the_wait() -> None:
    reader = Database("host=127.0.0.1 port=1", wait_seconds=0.3)
    with pytest.raises(DatabaseUnavailable) as raised:
        reader.read(backend_pid)
    assert isinstance(raised.value.__cause__, psycopg2.OperationalError)
