"""The harness, used as other teams do: by pytest, by a script, by a program in any language."""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from textwrap import dedent
from typing import Any

import psycopg2
import pytest
import requests
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.testing import Harness, HarnessError, harness
from medmitra_cases.testing.postgres import open_folder
from medmitra_cases.testing.start import TEST_DATABASE_URL
from tests.support.factories import DOCTOR, KEYS, execute
from tests.support.processes import (
    COMMAND,
    TIMEOUT_SECONDS,
    environment,
    processes_below,
    run,
    run_program,
    wait_until,
)
from tests.support.programs import free_port
from tests.support.snippets import snippet

DASHBOARD = snippet("README.md", "Test author", "python", 1)
CONFTESTS = {
    "README.md": snippet("README.md", "Test author", "python", 2),
    "docs/testing.md": snippet("docs/testing.md", "Settings", "python"),
}


def cases_of(medmitra: Harness, user_id: str = DOCTOR, **headers: str) -> Any:
    answer = requests.get(
        medmitra.url("/cases/all_cases", user_id=user_id), headers=headers, timeout=TIMEOUT_SECONDS
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["cases"]


def pytest_run(
    folder: Path, server_dsn: str, *arguments: str, **files: str
) -> subprocess.CompletedProcess[str]:
    """Run a suite of another team's, on a server that they have; without one, on an embedded one."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text))
    plugins = ("-p", "no:cacheprovider", "-p", "no:schemathesis")  # the latter takes a second to load
    command = (sys.executable, "-m", "pytest", "-W", "error", *plugins, *arguments)
    named = {TEST_DATABASE_URL: server_dsn}
    return run_program(command, named, cwd=folder, timeout=4 * TIMEOUT_SECONDS)


def run_script(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of another team's, as a terminal would: in a process group of its own."""
    return run_program([sys.executable, "-c", script], variables, cwd=folder, start_new_session=True)


@contextmanager
def open_transaction(medmitra: Harness) -> Iterator[Connection]:
    """A transaction that holds all cases."""
    with closing(psycopg2.connect(medmitra.database_url)) as writer:
        execute(writer, "SELECT 1 FROM medmitra.cases FOR UPDATE")
        yield writer


class TestTheFixture:
    def test_a_dashboard_in_two_lines(self, tmp_path: Path) -> None:
        ended = pytest_run(tmp_path, "", test_dashboard=DASHBOARD)
        assert ended.returncode == 0, ended.stdout
        assert "1 passed" in ended.stdout

    def test_each_test_has_its_own_cases_on_each_worker(self, server_dsn: str, tmp_path: Path) -> None:
        crowd = f'{DASHBOARD}\nDOCTOR = "{DOCTOR}"\n' + dedent("""
    import pytest

    @pytest.mark.parametrize("count", range(8))
    def test_many(medmitra, count):
        assert requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR)).json() == {"cases": []}
        added = [medmitra.add_case(user_id=DOCTOR) for _ in range(count)]
        assert requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR)).json() == {"cases": added}
""")
        ended = pytest_run(tmp_path, server_dsn, "-n2", test_dashboard=crowd)
        assert ended.returncode == 0, ended.stdout
        assert "9 passed" in ended.stdout

    @pytest.mark.parametrize("conftest", CONFTESTS.values(), ids=CONFTESTS)
    def test_a_conftest_may_choose_the_services_settings(
        self, server_dsn: str, tmp_path: Path, conftest: str
    ) -> None:
        ended = pytest_run(
            tmp_path,
            server_dsn,
            conftest=conftest,
            test_dashboard=f"""
    import requests

    def test_my_dashboard(medmitra):
        url = medmitra.url("/cases/all_cases", user_id="{DOCTOR}")
        assert requests.get(url).status_code == 401
        token = medmitra.token("{DOCTOR}")
        assert requests.get(url, headers={{"Authorization": f"Bearer {{token}}"}}).json() == {{"cases": []}}
        old = medmitra.token("{DOCTOR}", minutes=-1)
        assert "expired" in requests.get(url, headers={{"Authorization": f"Bearer {{old}}"}}).json()["detail"]
""",
        )
        assert ended.returncode == 0, ended.stdout

    def test_a_test_that_fails_shows_what_the_service_logged(self, server_dsn: str, tmp_path: Path) -> None:
        ended = pytest_run(
            tmp_path,
            server_dsn,
            test_dashboard="""
    import requests

    def test_that_passes(medmitra):
        requests.get(medmitra.url("/cases/all_cases"), headers={"X-Request-ID": "passes"})

    def test_that_fails(medmitra):
        requests.get(medmitra.url("/cases/all_cases"), headers={"X-Request-ID": "fails"})
        assert False
""",
        )
        assert ended.returncode == 1
        assert '"request_id":"fails"' in ended.stdout
        assert '"request_id":"passes"' not in ended.stdout

    def test_a_harness_that_does_not_start_is_told_in_one_line(self, tmp_path: Path) -> None:
        ended = pytest_run(tmp_path, "postgresql://u:hunter2/x@127.0.0.1/y", test_dashboard=DASHBOARD)
        assert ended.returncode == 1
        assert "Error: MEDMITRA_TEST_DATABASE_URL is a URI that cannot be parsed" in ended.stdout
        assert "hunter2" not in ended.stdout
        assert "Traceback" not in ended.stdout

    def test_what_a_test_leaves_behind_is_not_the_next_ones_trouble(
        self, server_dsn: str, tmp_path: Path
    ) -> None:
        ended = pytest_run(
            tmp_path,
            server_dsn,
            test_dashboard="""
    import psycopg2
    import pytest
    import requests

    DOCTOR = "b8acad4b-4944-4d66-b405-de70886e7248"
    kept = []

    def test_that_leaves_an_answer_half_read(medmitra):
        for _ in range(2_500):
            medmitra.add_case(user_id=DOCTOR, case_summary=10_000 * "x")
        kept.append(requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR), stream=True))
        assert kept[0].raw.read(100)

    def test_that_leaves_a_transaction(medmitra):
        kept.append(psycopg2.connect(medmitra.database_url))
        cursor = kept[1].cursor()
        cursor.execute("SELECT count(*) FROM medmitra.cases")
        assert cursor.fetchone() == (0,)

    def test_that_ends_what_it_can(medmitra):
        cursor = kept[1].cursor()
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()")

    def test_that_has_all_it_needs(medmitra):
        added = medmitra.add_case(user_id=DOCTOR)
        assert requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR)).json() == {"cases": [added]}
""",
        )
        assert ended.returncode == 0, ended.stdout


class TestTheContextManager:
    def test_a_script_needs_no_pytest(self, tmp_path: Path) -> None:
        script = f"""
import sys
from urllib.request import urlopen

from medmitra_cases.testing import harness

with harness() as medmitra:
    medmitra.add_case(user_id="{DOCTOR}", patient_name="Ada")
    print(urlopen(medmitra.url("/cases/all_cases", user_id="{DOCTOR}")).read().decode())
assert "pytest" not in sys.modules
"""
        ended = run_script(script, tmp_path, DATABASE_URL="host=nowhere.invalid", MEDMITRA_THREADS="none")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert json.loads(ended.stdout)["cases"][0]["patient_name"] == "Ada"

    def test_what_was_logged_can_be_read(self, medmitra: Harness) -> None:
        cases_of(medmitra, **{"X-Request-ID": "first"})
        assert '"request_id":"first"' in medmitra.log()
        cases_of(medmitra, **{"X-Request-ID": "second"})
        lines = medmitra.log().splitlines()
        assert [json.loads(line)["request_id"] for line in lines] == ["second"]

    def test_threads_may_share_it(self, medmitra: Harness) -> None:
        def work(number: int) -> str:
            added = medmitra.add_case(user_id=DOCTOR, patient_name=f"Patient of {number}")
            return f"{added['patient_name']} {len(medmitra.log())}"

        with ThreadPoolExecutor(8) as pool:
            names = [said.rpartition(" ")[0] for said in pool.map(work, range(100))]
        assert names == [f"Patient of {number}" for number in range(100)]

    def test_a_call_that_was_interrupted_leaves_nothing_to_the_next(self, medmitra: Harness) -> None:
        class Interrupted(Exception):
            pass

        def interrupt(_number: int, _frame: object) -> None:
            raise Interrupted

        case_id = medmitra.add_case(user_id=DOCTOR)["case_id"]
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with open_transaction(medmitra):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(Interrupted):
                    medmitra.update_case(case_id, status="interrupted")
        finally:
            signal.signal(signal.SIGALRM, before)
        assert medmitra.add_case(user_id=DOCTOR, patient_name="Next")["patient_name"] == "Next"
        assert medmitra.log().count("failed") == 0

    def test_a_process_that_forked_off_is_told(self) -> None:
        with harness() as medmitra:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    medmitra.clear()
                except HarnessError as error:
                    os.write(writer, str(error).encode())
                signal.pause()
            assert b"only the process that started" in os.read(reader, 1_000)
        # It has ended all the same, though the child holds its stdin open; else it would have been killed.
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    def test_what_a_test_calls_its_modules_is_its_own_business(self, server_dsn: str, tmp_path: Path) -> None:
        files = {"click": "raise SystemExit(1)", "resource": "print('noise')"}
        ended = pytest_run(tmp_path, server_dsn, **files, test_dashboard=DASHBOARD)
        assert ended.returncode == 0, ended.stdout

    def test_ctrl_c_is_for_the_tests(self, server_dsn: str, tmp_path: Path) -> None:
        script = f"""
import os, signal
from medmitra_cases.testing import harness
with harness() as medmitra:
    try:
        os.killpg(0, signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        print(medmitra.add_case(user_id="{DOCTOR}")["user_id"])
"""
        ended = run_script(script, tmp_path, MEDMITRA_TEST_DATABASE_URL=server_dsn)
        assert (ended.stdout, ended.stderr) == (f"{DOCTOR}\n", "")

    def test_a_setting_that_is_wrong_is_said(self) -> None:
        with (
            pytest.raises(HarnessError, match=r"Error: MEDMITRA_THREADS must be a number$"),
            harness({"MEDMITRA_THREADS": "many"}),
        ):
            pass

    def test_it_is_said_that_it_has_ended(self) -> None:
        with harness() as medmitra:
            pass
        for act in (medmitra.clear, lambda: medmitra.add_case(user_id=DOCTOR)):
            with pytest.raises(HarnessError, match="the harness has ended"):
                act()

    def test_a_named_server_is_left_as_it_was(self, server_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEDMITRA_TEST_DATABASE_URL", server_dsn)
        with closing(psycopg2.connect(server_dsn)) as server:
            server.autocommit = True
            before = execute(server, "SELECT datname FROM pg_database ORDER BY 1")
            with harness() as one, harness() as other:
                assert len(execute(server, "SELECT 1 FROM pg_database")) == len(before) + 2
                one.add_case(user_id=DOCTOR)
                assert (len(cases_of(one)), cases_of(other)) == (1, [])
            assert execute(server, "SELECT datname FROM pg_database ORDER BY 1") == before


class TestCases:
    def test_a_case_comes_back_as_the_service_answers_with_it(self, medmitra: Harness) -> None:
        first = medmitra.add_case(user_id=DOCTOR)
        second = medmitra.add_case(user_id=uuid.UUID(DOCTOR))
        medmitra.add_case(user_id=uuid.uuid4())
        assert cases_of(medmitra) == [first, second]
        assert tuple(first) == KEYS
        assert (first["status"], first["case_summary"]) == ("pending", None)
        assert first["patient_name"] != second["patient_name"]

    def test_every_key_may_be_given(self, medmitra: Harness) -> None:
        india = timezone(timedelta(hours=5, minutes=30))
        case = medmitra.add_case(
            case_id=uuid.UUID(int=7),
            user_id=DOCTOR,
            patient_name="Zoë O'Connor",
            patient_age=7,
            patient_gender="other",
            case_summary=None,
            status="failed",
            created_at=datetime(2026, 3, 4, 16, 0, tzinfo=india),
            updated_at="2026-03-04T11:45:00.5",
        )
        assert list(case.values()) == [
            *("00000000-0000-0000-0000-000000000007", DOCTOR, "Zoë O'Connor", 7, "other", None, "failed"),
            *("2026-03-04T10:30:00Z", "2026-03-04T11:45:00.500000Z"),
        ]
        assert cases_of(medmitra) == [case]

    def test_a_case_gets_on(self, medmitra: Harness) -> None:
        case = medmitra.add_case(user_id=DOCTOR)
        changed = medmitra.update_case(case["case_id"], status="completed", case_summary="All is well.")
        assert cases_of(medmitra) == [changed]
        assert changed == {
            **case,
            "status": "completed",
            "case_summary": "All is well.",
            "updated_at": changed["updated_at"],
        }
        assert changed["updated_at"] > case["updated_at"]

    def test_clear_leaves_nothing(self, medmitra: Harness) -> None:
        medmitra.add_case(user_id=DOCTOR)
        medmitra.clear()
        assert cases_of(medmitra) == []

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"user_id": "me"}, "user_id must be a UUID"),
            ({"user_id": DOCTOR, "case_id": 7}, "case_id"),
            ({"user_id": DOCTOR, "pateint_name": "Ada"}, "pateint_name is not a key of a case"),
            ({"user_id": DOCTOR, "patient_age": "old"}, "patient_age"),
            ({"user_id": DOCTOR, "patient_age": 1.5}, "patient_age"),
            ({"user_id": DOCTOR, "self": 1}, "self is not a key of a case"),
            ({"user_id": DOCTOR, "created_at": "some day"}, "invalid input syntax for type timestamp"),
            ({"user_id": DOCTOR, "patient_name": "A\0"}, "NUL"),
            ({"user_id": DOCTOR, "patient_name": None}, "patient_name"),
        ],
    )
    def test_a_case_that_cannot_be_is_refused(
        self, medmitra: Harness, values: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(HarnessError, match=said) as refused:
            medmitra.add_case(**values)
        assert "\n" not in str(refused.value)
        assert medmitra.add_case(user_id=DOCTOR)["user_id"] == DOCTOR  # it goes on

    def test_no_case_is_changed_that_is_not_there(self, medmitra: Harness) -> None:
        with pytest.raises(HarnessError, match="no case has this case_id"):
            medmitra.update_case(uuid.uuid4(), status="completed")

    def test_a_token_takes_a_secret(self, medmitra: Harness) -> None:
        with pytest.raises(HarnessError, match="MEDMITRA_JWT_SECRET is not set"):
            medmitra.token(DOCTOR)

    def test_cases_that_a_transaction_holds_are_named_as_such(self, medmitra: Harness) -> None:
        medmitra.add_case(user_id=DOCTOR)
        with (
            open_transaction(medmitra),
            pytest.raises(HarnessError, match="an open transaction has locked cases"),
        ):
            medmitra.clear()

    def test_the_database_is_there_for_the_rest(self, medmitra: Harness) -> None:
        medmitra.add_case(user_id=DOCTOR)
        with closing(psycopg2.connect(medmitra.database_url)) as owner:
            owner.autocommit = True
            execute(owner, "DELETE FROM medmitra.cases")
        assert cases_of(medmitra) == []

    def test_an_address_is_quoted(self, medmitra: Harness) -> None:
        url = medmitra.url("/cases/all_cases", user_id=uuid.UUID(DOCTOR), search="chest pain & more", limit=5)
        assert url == (
            f"{medmitra.base_url}/cases/all_cases?user_id={DOCTOR}&search=chest+pain+%26+more&limit=5"
        )
        assert medmitra.url("/") == f"{medmitra.base_url}/"


@pytest.fixture(scope="module")
def strict_server() -> Iterator[str]:
    """A server of another team's: it asks for passwords, is in India, and of no particular encoding."""
    with open_folder() as folder, embedded_postgres(folder) as dsn:
        with closing(psycopg2.connect(dsn)) as admin:
            admin.autocommit = True
            execute(admin, "CREATE ROLE builder LOGIN CREATEDB CREATEROLE PASSWORD %s", [PASSWORD])
            execute(admin, "ALTER ROLE postgres PASSWORD %s", [PASSWORD])
            execute(admin, "ALTER SYSTEM SET timezone = 'Asia/Kolkata'")
            ((path,),) = execute(admin, "SHOW hba_file")
            Path(path).write_text("local all all scram-sha-256\n")
            execute(admin, "SELECT pg_reload_conf()")
        wait_until(lambda: is_refused(dsn))
        yield make_dsn(dsn, password=PASSWORD)


PASSWORD = "p@ss:w/rd %41?&#"


def is_refused(dsn: str) -> bool:
    try:
        psycopg2.connect(dsn).close()
    except psycopg2.OperationalError:
        return True
    return False


class TestAServerThatIsNamed:
    def test_it_may_ask_for_passwords_and_be_anywhere(self, strict_server: str) -> None:
        with harness({TEST_DATABASE_URL: strict_server}) as medmitra:
            medmitra.add_case(user_id=DOCTOR, patient_name="Zoë", created_at="2026-03-04T10:30:00")
            (case,) = cases_of(medmitra)
            assert (case["patient_name"], case["created_at"]) == ("Zoë", "2026-03-04T10:30:00Z")
            left_open = psycopg2.connect(medmitra.database_url)
            name = left_open.info.dbname
        with closing(psycopg2.connect(strict_server)) as server:
            assert execute(server, "SELECT 1 FROM pg_database WHERE datname = %s", [name]) == []
        left_open.close()

    def test_who_names_no_user_may_have_him_in_the_environment(
        self, strict_server: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGUSER", "postgres")
        parts = parse_dsn(strict_server)
        del parts["user"]
        with harness({TEST_DATABASE_URL: make_dsn(**parts)}) as medmitra:
            monkeypatch.delenv("PGUSER")
            with closing(psycopg2.connect(medmitra.database_url)) as owner:
                assert execute(owner, "SELECT current_user") == [("postgres",)]

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"user": "builder"}, "MEDMITRA_TEST_DATABASE_URL must name a superuser"),
            ({"password": "another"}, "password authentication failed"),
            ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
        ],
    )
    def test_one_that_will_not_do_is_said(
        self, strict_server: str, change: dict[str, str], told: str
    ) -> None:
        with (
            pytest.raises(HarnessError, match=told),
            harness({TEST_DATABASE_URL: make_dsn(strict_server, **change)}),
        ):
            pass

    def test_one_that_stays_silent_is_given_up(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            dsn = f"host=127.0.0.1 port={silent.getsockname()[1]} user=u dbname=d"
            with pytest.raises(HarnessError, match="timeout expired"), harness({TEST_DATABASE_URL: dsn}):
                pass

    def test_those_who_use_it_take_turns_with_its_roles(self, server_dsn: str) -> None:
        waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with (
            closing(psycopg2.connect(server_dsn)) as first,
            ThreadPoolExecutor(1) as pool,
        ):
            execute(first, "SELECT pg_advisory_xact_lock(hashtextextended('medmitra roles.sql', 0))")
            with ExitStack() as stack:
                second = pool.submit(stack.enter_context, harness({TEST_DATABASE_URL: server_dsn}))
                wait_until(lambda: execute(first, waiting) or second.done())
                assert not second.done()
                first.commit()
                assert cases_of(second.result()) == []


@contextmanager
def command(folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command ``harness``, whose Postgres lives below the folder."""
    with subprocess.Popen(
        [COMMAND, "harness", *arguments],
        env=environment(TMPDIR=str(folder), **variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[bytes], line: bytes = b"") -> Any:
    """What it answers to a line."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    return json.loads(process.stdout.readline())


@pytest.fixture(scope="module")
def lines(server_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    with command(tmp_path_factory.mktemp("none"), MEDMITRA_TEST_DATABASE_URL=server_dsn) as process:
        assert said(process)["url"].startswith("http://127.0.0.1:")
        yield process


class TestTheCommand:
    def test_it_obeys_line_by_line_and_ends_with_its_stdin(self, folder: Path) -> None:
        with command(folder) as process:
            ready = said(process)
            assert ready.keys() == {"url", "database_url"}
            added = said(process, b'{"add_case": {"user_id": "%s"}}\n' % DOCTOR.encode())["result"]
            url = f"{ready['url']}/cases/all_cases?user_id={DOCTOR}"
            assert requests.get(url, timeout=TIMEOUT_SECONDS).json() == {"cases": [added]}
            assert said(process, b'{"clear": {}}\n') == {"result": None}
            assert requests.get(url, timeout=TIMEOUT_SECONDS).json() == {"cases": []}
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(TIMEOUT_SECONDS) == 0
        assert not processes_below(folder)
        assert not list(folder.iterdir())

    def test_an_id_comes_back_with_the_answer(self, lines: subprocess.Popen[bytes]) -> None:
        assert said(lines, b'{"id": "a", "clear": {}}\n') == {"id": "a", "result": None}
        assert said(lines, b'{"id": [1], "drop": {}}\n').keys() == {"id", "error"}

    def test_it_listens_where_it_is_told(self, server_dsn: str, tmp_path: Path) -> None:
        port = free_port()
        told = ("--listen", f"127.0.0.1:{port}")
        with command(tmp_path, *told, MEDMITRA_TEST_DATABASE_URL=server_dsn) as process:
            assert said(process)["url"] == f"http://127.0.0.1:{port}"
        ended = run("harness", "--listen", "8000")
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert "--listen" in ended.stderr

    @pytest.mark.parametrize(
        "line",
        [
            b"\n",
            b"x\n",
            b"[]\n",
            b"{}\n",
            b'{"clear": 1}\n',
            b'{"drop": {}}\n',
            b'{"clear": {"all": true}}\n',
        ],
    )
    def test_a_line_that_it_does_not_understand_is_answered(
        self, lines: subprocess.Popen[bytes], line: bytes
    ) -> None:
        assert said(lines, line).keys() == {"error"}
        assert said(lines, b'{"clear": {}}\n') == {"result": None}

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_in_peace(self, server_dsn: str, tmp_path: Path, number: signal.Signals) -> None:
        with command(tmp_path, MEDMITRA_TEST_DATABASE_URL=server_dsn) as process:
            said(process)
            process.send_signal(number)
            assert process.wait(TIMEOUT_SECONDS) == 0
            assert process.stderr is not None
            assert b"Error" not in process.stderr.read()

    def test_it_does_not_outlive_a_program_that_is_killed(self, folder: Path) -> None:
        program = "import os, signal\nfrom medmitra_cases.testing import harness\n"
        program += (
            "with harness() as medmitra:\n    medmitra.clear()\n    os.kill(os.getpid(), signal.SIGKILL)"
        )
        killed = run_script(program, folder, TMPDIR=str(folder))
        assert killed.returncode == -signal.SIGKILL
        wait_until(lambda: not processes_below(folder) and not list(folder.glob("medmitra-*")))

    def test_it_ends_when_nobody_listens_any_more(self, server_dsn: str, tmp_path: Path) -> None:
        with command(tmp_path, MEDMITRA_TEST_DATABASE_URL=server_dsn) as process:
            said(process)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.close()
            process.stdin.write(b'{"clear": {}}\n')
            process.stdin.flush()
            assert process.wait(TIMEOUT_SECONDS) == 0
