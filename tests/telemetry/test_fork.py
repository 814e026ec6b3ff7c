"""A process that forks after a request: the child uses nothing of its parent, and each goes on."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from tests.support.factories import DOCTOR, CasesDatabase, case
from tests.support.key_server import KeyServer
from tests.support.processes import TIMEOUT_SECONDS, environment
from tests.support.tokens import EC_KEY, issued_by_key, jwk

# These tests do not depend on the table layout.
pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)

OTHER = DOCTOR[:-1] + "a"
TOKENS = {doctor: issued_by_key(EC_KEY, "ec", sub=doctor) for doctor in (DOCTOR, OTHER)}

# The beginning of every program below: an application, requests to it, and threads that do not start.
BEGIN = f"""
import logging, multiprocessing, os, sys, threading, time
from medmitra_cases import create_app
from medmitra_cases.telemetry import logs

DOCTOR, OTHER, TOKENS, PARENT = {DOCTOR!r}, {OTHER!r}, {TOKENS!r}, os.getpid()
app = create_app()

def ask(name, doctor=DOCTOR):
    headers = {{"X-Request-ID": name, "Authorization": "Bearer " + TOKENS[doctor]}}
    response = app.test_client().get("/cases/all_cases?user_id=" + doctor, headers=headers)
    owners = {{found["user_id"] for found in response.json.get("cases", ())}}
    say(f"{{name}} {{response.status_code}} {{'foreign' if owners - {{doctor}} else 'own'}}")

def say(line):  # at once, because several processes write
    os.write(1, (line + "\\n").encode())

def pause():
    say("paused")
    sys.stdin.readline()

def in_child(function):
    pid = os.fork()
    if pid == 0:
        function()
        sys.exit()
    return pid

def end(pid):
    assert os.waitpid(pid, 0)[1] == 0

def hold_starts(thread_name):
    '''Let threads of this name wait, in the parent, in their start().'''
    start, reached = threading.Thread.start, threading.Event()
    def held(thread):
        if thread.name == thread_name and os.getpid() == PARENT:
            reached.set()
            threading.Event().wait()
        start(thread)
    threading.Thread.start = held
    return reached
"""


class Program:
    """A Python program while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed: list[str] = []

    def read_until_paused(self) -> None:
        """Read what it prints until it pauses."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line.strip())
            if line == "paused\n":
                return
        raise AssertionError(self.end())

    def resume(self) -> None:
        """End its pause."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> list[dict[str, object]]:
        """Wait for its end, and return the lines of JSON on its stderr."""
        stdout, stderr = self.process.communicate(timeout=TIMEOUT_SECONDS)
        assert self.process.returncode == 0, stderr
        self.printed += stdout.splitlines()
        return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


@contextmanager
def program(text: str, **variables: str) -> Iterator[Program]:
    """Run a program."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGIN + text],
        env=environment(**variables),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Program(process)
        finally:
            with suppress(ProcessLookupError):  # a child that hangs ends, too
                os.killpg(process.pid, signal.SIGKILL)


def answered(program: Program) -> set[str]:
    """The requests that got 200 and no case of another doctor."""
    return {line.removesuffix(" 200 own") for line in program.printed if line.endswith(" 200 own")}


def named(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def audited(lines: list[dict[str, object]]) -> Counter[object]:
    """How often the audit names each request."""
    return Counter(line["request_id"] for line in lines if "outcome" in line)


@pytest.fixture(autouse=True)
def _cases(database: CasesDatabase) -> None:
    for doctor in (DOCTOR, OTHER):
        database.add(*(case(user_id=doctor) for _ in range(3)))


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    with closing(KeyServer()) as server:
        server.publish(jwk(EC_KEY, "ec"))
        yield server


@pytest.fixture
def variables(database: CasesDatabase, key_server: KeyServer) -> dict[str, str]:
    return {"DATABASE_URL": database.service_dsn, "MEDMITRA_JWKS_URL": key_server.url}


def test_parent_and_child_serve_and_the_parent_keeps_its_session(
    database: CasesDatabase, variables: dict[str, str]
) -> None:
    text = """
ask("before")
pause()
pid = in_child(lambda: [ask(f"child-{number}", OTHER) for number in range(50)])
for number in range(50):
    ask(f"parent-{number}")
end(pid)
ask("after")
pause()
"""
    with program(text, **variables) as forking:
        forking.read_until_paused()
        before = database.sessions
        forking.resume()
        forking.read_until_paused()
        assert len(before) == 1
        assert database.sessions == before
        forking.resume()
        lines = forking.end()
    expected = {
        "before",
        "after",
        *(f"{who}-{number}" for who in ("parent", "child") for number in range(50)),
    }
    assert answered(forking) == expected
    assert audited(lines) == dict.fromkeys(expected, 1)


def test_a_grandchild(variables: dict[str, str]) -> None:
    text = """
ask("parent")
def child():
    ask("child", OTHER)
    end(in_child(lambda: ask("grandchild")))
    ask("child-2", OTHER)
end(in_child(child))
"""
    with program(text, **variables) as forking:
        lines = forking.end()
    expected = {"parent", "child", "child-2", "grandchild"}
    assert answered(forking) == expected
    assert audited(lines) == dict.fromkeys(expected, 1)


def test_children_that_are_forked_while_the_log_is_written(variables: dict[str, str]) -> None:
    text = """
for number in range(10):
    ask(f"parent-{number}")
    if number % 2:
        logging.getLogger("medmitra_cases.audit").handlers[0].flush()  # otherwise the line waits 10 ms
    end(in_child(lambda: ask(f"child-{number}", OTHER)))
"""
    with program(text, **variables) as forking:
        lines = forking.end()
    expected = {*named("parent", 10), *named("child", 10)}
    assert answered(forking) == expected
    assert audited(lines) == dict.fromkeys(expected, 1)


def test_multiprocessing(variables: dict[str, str]) -> None:
    text = """
ask("before")
context = multiprocessing.get_context("fork")
processes = [context.Process(target=ask, args=(f"process-{number}", OTHER)) for number in range(4)]
for process in processes:
    process.start()
for process in processes:
    process.join()
with context.Pool(2) as pool:
    pool.map(ask, ["pool-0", "pool-1", "pool-2"])
    pool.close()
    pool.join()
"""
    with program(text, **variables) as forking:
        lines = forking.end()
    expected = {"before", *named("process", 4), *named("pool", 3)}
    assert answered(forking) == expected
    assert audited(lines) == dict.fromkeys(expected, 1)


@pytest.mark.parametrize("thread_name", ["log", "signing-keys"])
def test_a_fork_while_another_thread_holds_the_locks(variables: dict[str, str], thread_name: str) -> None:
    text = f"""
reached = hold_starts({thread_name!r})
threading.Thread(target=ask, args=["parent"], daemon=True).start()
reached.wait()
end(in_child(lambda: ask("child", OTHER)))
os._exit(0)  # without the thread that never ends
"""
    with program(text, **variables) as forking:
        lines = forking.end()
    assert answered(forking) == {"child"}
    assert audited(lines) == {"child": 1}


def test_a_fork_while_another_thread_checks_parameters(variables: dict[str, str]) -> None:
    text = """
from medmitra_cases.schemas import query_string
load, reached = query_string.CASE_QUERY.load, threading.Event()
def held(values):
    if os.getpid() == PARENT:
        reached.set()
        threading.Event().wait()
    return load(values)
query_string.CASE_QUERY.load = held
threading.Thread(target=ask, args=["parent"], daemon=True).start()
reached.wait()
end(in_child(lambda: ask("child", OTHER)))
os._exit(0)  # without the thread that never ends
"""
    with program(text, **variables) as forking:
        lines = forking.end()
    assert answered(forking) == {"child"}
    assert audited(lines) == {"child": 1}


def test_a_fork_while_the_keys_are_fetched(variables: dict[str, str], key_server: KeyServer) -> None:
    text = """
threading.Thread(target=ask, args=["parent"]).start()
pause()
pid = os.fork()
pause() if pid else (ask("child", OTHER), sys.exit())
end(pid)
"""
    with program(text, **variables) as forking:
        forking.read_until_paused()
        with key_server.holding():
            key_server.wait_for_fetches(1)
        forking.resume()
        forking.read_until_paused()
        forking.resume()
        lines = forking.end()
    assert answered(forking) == {"parent", "child"}
    assert audited(lines) == {"parent": 1, "child": 1}


def test_a_fork_during_a_long_response(database: CasesDatabase, variables: dict[str, str]) -> None:
    database.add_many([DOCTOR], 5_000)
    text = """
from medmitra_cases.web import audit
headers = {"X-Request-ID": "long", "Authorization": "Bearer " + TOKENS[DOCTOR]}
response = app.test_client().get("/cases/all_cases?user_id=" + DOCTOR, headers=headers, buffered=False)
parts = iter(response.response)
next(parts)
def child():
    ask("child", OTHER)
    audit.write_unfinished()
    response.close()  # as the end of the process does, too
end(in_child(child))
say(f"end of list: {b''.join(parts).endswith(b']}')}")
response.close()
"""
    with program(text, **variables) as forking:
        lines = forking.end()
    assert "end of list: True" in forking.printed
    assert audited(lines) == {"long": 1, "child": 1}
    assert {line["outcome"] for line in lines if "outcome" in line} == {"ok"}


def test_a_child_does_not_log_in_the_name_of_the_last_request(variables: dict[str, str]) -> None:
    text = """
logs.configure("json")
ask("before")
end(in_child(lambda: logging.getLogger("some.logger").warning("of the child")))
"""
    with program(text, **variables) as forking:
        (line,) = (line for line in forking.end() if line.get("message") == "of the child")
    assert line["request_id"] is None


def test_readiness(variables: dict[str, str]) -> None:
    text = """
from medmitra_cases.admin import Readiness
from medmitra_cases.database import Database
database = Database(os.environ["DATABASE_URL"], wait_seconds=3)
readiness = Readiness(database, row_versions=True)
say(f"parent {readiness.problem()}")
end(in_child(lambda: say(f"child {readiness.problem()}")))
say(f"parent again {readiness.problem()}")
reached = hold_starts("readiness")
held = Readiness(database, row_versions=True)
threading.Thread(target=held.problem, daemon=True).start()
reached.wait()
end(in_child(lambda: say(f"child of held {held.problem()}")))
"""
    with program(text, **variables) as forking:
        forking.end()
    assert sorted(forking.printed) == ["child None", "child of held None", "parent None", "parent again None"]


def test_a_server_that_does_not_call_the_hooks_of_python(variables: dict[str, str]) -> None:
    """As uWSGI: its children are not known to Python."""
    text = """
import ctypes
ask("before")
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    threads = [threading.Thread(target=ask, args=(f"child-{number}", OTHER)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask("child-4", OTHER)
    sys.exit()
for number in range(50):
    ask(f"parent-{number}")
end(pid)
"""
    with program(text, **variables) as forking:
        lines = forking.end()
    expected = {"before", *named("parent", 50), *named("child", 5)}
    assert answered(forking) == expected
    assert audited(lines) == dict.fromkeys(expected, 1)
