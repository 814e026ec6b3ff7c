"""A forked process uses no connection of its parent, and leaves the parent's sessions alone."""

import os
import subprocess
import sys

import pytest

from tests.support.factories import CasesDatabase

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

BEGIN = """
import gc, os, signal, sys, time, traceback
import psycopg2
from medmitra_cases.database import Database
from medmitra_cases.telemetry import metrics

database = Database(os.environ["DSN"], wait_seconds=10)

def execute(connection, statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()

def pid(connection):
    return execute(connection, "SELECT pg_backend_pid()")[0][0]

def read(query=pid):
    return database.read(time.monotonic(), query)

def in_child(function):
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

def open_connections():
    return metrics.REGISTRY.get_sample_value("medmitra_database_connections_open")
"""

USES_ITS_OWN = """
parent = read()
def child():
    assert open_connections() == 0
    own = read()
    assert own not in (parent, None)
    assert read() == own
    assert open_connections() == 1
    database.close()
for _ in range(3):
    in_child(child)
    assert read() == parent
"""

DROPS_AND_COLLECTS = """
parent = read()
def child():
    global database
    del database
    gc.collect()
in_child(child)
assert read() == parent
"""

FORK_DURING_A_READ = """
def fork_and_go_on(connection):
    before = pid(connection)
    def child():
        # The inherited connection does not reach the server, so the child may even close it.
        for use in (lambda: pid(connection), connection.close):
            try:
                use()
            except psycopg2.Error:
                continue
        assert read() != before
    in_child(child)
    assert pid(connection) == before
    return before
parent = read(fork_and_go_on)
assert read() == parent
"""

A_KEPT_CONNECTION = """
def begin(connection):
    connection.autocommit = False
    execute(connection, "SELECT 1")
    return connection
kept = read(begin)
parent = pid(kept)
def child():
    try:
        kept.rollback()
    except psycopg2.Error:
        pass
    kept.give_back()
    assert read() != parent
    assert read() != parent
in_child(child)
assert pid(kept) == parent
kept.rollback()
kept.autocommit = True
kept.give_back()
assert read() == parent
"""

A_GRANDCHILD = """
parent = read()
def child():
    own = read()
    def grandchild():
        assert read() not in (parent, own)
    in_child(grandchild)
    assert read() == own
in_child(child)
assert read() == parent
"""

SESSIONS_END_WITH_THEIR_PROCESS = """
parent = read()
reader, writer = os.pipe()
middle = os.fork()
if middle == 0:  # has a session, and a child that outlives it
    own = read()
    if os.fork() == 0:
        signal.pause()  # the signal at the end of this program ends it
    os.write(writer, str(own).encode())
    os.kill(os.getpid(), signal.SIGKILL)
own = int(os.read(reader, 20))
os.waitpid(middle, 0)
deadline = time.monotonic() + 20
while read(lambda connection: execute(connection, f"SELECT 1 FROM pg_stat_activity WHERE pid = {own}")):
    assert time.monotonic() < deadline
os.killpg(os.getpgid(0), signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (USES_ITS_OWN, 0),
        (DROPS_AND_COLLECTS, 0),
        (FORK_DURING_A_READ, 0),
        (A_KEPT_CONNECTION, 0),
        (A_GRANDCHILD, 0),
        (SESSIONS_END_WITH_THEIR_PROCESS, -15),
    ],
    ids=[
        "uses its own",
        "drops and collects",
        "fork during a read",
        "a kept connection",
        "a grandchild",
        "sessions end with their process",
    ],
)
def test_a_child(database: CasesDatabase, program: str, status: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGIN + program],
        env={**os.environ, "DSN": database.service_dsn},
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert ended.returncode == status, ended.stderr
    assert ended.stderr == ""
