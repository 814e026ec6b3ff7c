"""The test harness as other teams use it: from pytest, from a script, from a program in any language."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import date, datetime, timedelta, timezone
from enum import Enum, IntEnum
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


class FakeDatetime(datetime):
    """A time of a faked clock, as freezegun makes it."""


class FakeDate(date):
    """A day of a faked clock."""


class DriversUUID(uuid.UUID):
    """A UUID as asyncpg returns it."""


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Status(str, Enum):
    """An enumeration of texts. ``str()`` of a member is not its value, unlike in StrEnum."""

    FAILED = "failed"


class Age(IntEnum):
    ADULT = 18


def cases_of(medmitra: Harness, user_id: str = DOCTOR, **headers: str) -> Any:
    response = requests.get(
        medmitra.url("/cases/all_cases", user_id=user_id), headers=headers, timeout=TIMEOUT_SECONDS
    )
    assert response.status_code == 200, response.text
    return response.json()["cases"]


def run_pytest(
    folder: Path, server_dsn: str, *arguments: str, **files: str
) -> subprocess.CompletedProcess[str]:
    """Run another team's test suite on a Postgres server, or on an embedded one if the DSN is empty."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text))
    plugins = ("-p", "no:cacheprovider", "-p", "no:schemathesis")  # schemathesis takes a second to load
    command = (sys.executable, "-m", "pytest", "-W", "error", *plugins, *arguments)
    variables = {TEST_DATABASE_URL: server_dsn}
    return run_program(command, variables, cwd=folder, timeout=4 * TIMEOUT_SECONDS)


def has_own_lines(report: str) -> bool:
    """Return whether a traceback in the report of pytest has a line of the harness or of contextlib."""
    return re.search(r"(medmitra_cases/testing/\w+|contextlib|subprocess)\.py:\d+: ", report) is not None


def run_script(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run another team's script in a new session, and so in a new process group, as a terminal does."""
    return run_program([sys.executable, "-c", script], variables, cwd=folder, start_new_session=True)


@contextmanager
def open_transaction(medmitra: Harness) -> Iterator[Connection]:
    """Open a transaction that locks all cases."""
    with closing(psycopg2.connect(medmitra.database_url)) as writer:
        execute(writer, "SELECT 1 FROM medmitra.cases FOR UPDATE")
        yield writer


class TestFixture:
    def test_the_example_of_the_readme_passes(self, tmp_path: Path) -> None:
        result = run_pytest(tmp_path, "", test_dashboard=DASHBOARD)
        assert result.returncode == 0, result.stdout
        assert "1 passed" in result.stdout

    def test_each_test_has_its_own_cases_on_each_worker(self, server_dsn: str, tmp_path: Path) -> None:
        suite = f'{DASHBOARD}\nDOCTOR = "{DOCTOR}"\n' + dedent("""
    import pytest

    @pytest.mark.parametrize("count", range(8))
    def test_many(medmitra, count):
        assert requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR)).json() == {"cases": []}
        added = [medmitra.add_case(user_id=DOCTOR) for _ in range(count)]
        assert requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR)).json() == {"cases": added}
""")
        result = run_pytest(tmp_path, server_dsn, "-n2", test_dashboard=suite)
        assert result.returncode == 0, result.stdout
        assert "9 passed" in result.stdout

    def test_temporary_paths_may_be_long(
        self, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        long = folder / ("x" * 150)
        long.mkdir(mode=0o755)
        monkeypatch.setenv("TMPDIR", str(long))
        result = run_pytest(tmp_path, "", f"--basetemp={long / 'base'}", test_dashboard=DASHBOARD)
        assert result.returncode == 0, result.stdout

    @pytest.mark.parametrize("conftest", CONFTESTS.values(), ids=CONFTESTS)
    def test_a_conftest_can_change_the_services_settings(
        self, server_dsn: str, tmp_path: Path, conftest: str
    ) -> None:
        result = run_pytest(
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
        assert result.returncode == 0, result.stdout

    def test_a_failed_test_shows_the_log_of_the_service(self, server_dsn: str, tmp_path: Path) -> None:
        result = run_pytest(
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
        assert result.returncode == 1
        assert '"request_id":"fails"' in result.stdout
        assert '"request_id":"passes"' not in result.stdout

    def test_pytest_reports_a_failed_start_in_one_line(self, tmp_path: Path) -> None:
        result = run_pytest(tmp_path, "postgresql://u:hunter2/x@127.0.0.1/y", test_dashboard=DASHBOARD)
        assert result.returncode == 1
        assert "Error: MEDMITRA_TEST_DATABASE_URL is a URI that cannot be parsed" in result.stdout
        assert "hunter2" not in result.stdout
        assert "Traceback" not in result.stdout

    def test_an_oserror_of_another_plugin_fails_only_its_test(self, server_dsn: str, tmp_path: Path) -> None:
        result = run_pytest(
            tmp_path,
            server_dsn,
            conftest="""
    import os
    import pytest

    def refuse(*_):
        raise OSError("no such device")

    @pytest.fixture
    def broken(medmitra):
        refuse()

    @pytest.fixture
    def broken_at_the_end(medmitra):
        yield
        refuse()

    @pytest.fixture
    def fake_files(monkeypatch):
        monkeypatch.setattr(os, "pread", refuse)
""",
            test_dashboard=f"""
    def test_with_a_broken_fixture(broken): pass
    def test_with_a_fixture_that_breaks_at_the_end(broken_at_the_end): pass

    def test_that_fails_with_fake_files(medmitra, fake_files):
        assert False

    def test_that_passes(medmitra):
        medmitra.add_case(user_id="{DOCTOR}")
""",
        )
        assert "1 failed, 2 passed, 2 errors" in result.stdout
        assert "-\ncannot be read: no such device\n" in result.stdout
        assert "INTERNALERROR" not in result.stdout + result.stderr

    def test_a_traceback_ends_at_the_line_of_the_test(self, server_dsn: str, tmp_path: Path) -> None:
        result = run_pytest(
            tmp_path,
            server_dsn,
            test_dashboard="""
    import pytest
    from medmitra_cases.testing import harness

    @pytest.mark.parametrize("call", [
        lambda medmitra: medmitra.add_case(user_id="Ada"),
        lambda medmitra: medmitra.add_case(user_id=object()),
        lambda medmitra: medmitra.update_case("Ada"),
        lambda medmitra: medmitra.token("Ada"),
        lambda medmitra: harness({"MEDMITRA_THREADS": "many"}).__enter__(),
    ])
    def test_that_fails(medmitra, call):
        call(medmitra)
""",
        )
        assert "5 failed" in result.stdout
        assert not has_own_lines(result.stdout)

    def test_a_killed_harness_is_reported_in_one_line_for_each_test(
        self, server_dsn: str, tmp_path: Path
    ) -> None:
        result = run_pytest(
            tmp_path,
            server_dsn,
            test_dashboard=f"""
    import os, signal

    def test_that_kills_it(medmitra):
        (harness,) = open(f"/proc/self/task/{{os.getpid()}}/children").read().split()
        os.kill(int(harness), signal.SIGKILL)
        medmitra.add_case(user_id="{DOCTOR}")

    def test_that_needs_it(medmitra): pass

    def test_without_it(): pass
""",
        )
        assert "1 failed, 1 passed, 3 errors" in result.stdout
        assert "HarnessError: the harness has ended" in result.stdout
        assert "the harness ended with status -9" in result.stdout
        assert "BrokenPipeError" not in result.stdout
        assert not has_own_lines(result.stdout)

    def test_open_connections_of_a_test_do_not_affect_the_next_test(
        self, server_dsn: str, tmp_path: Path
    ) -> None:
        result = run_pytest(
            tmp_path,
            server_dsn,
            test_dashboard="""
    import psycopg2
    import pytest
    import requests

    DOCTOR = "b8acad4b-4944-4d66-b405-de70886e7248"
    kept = []

    def test_that_leaves_a_response_half_read(medmitra):
        medmitra.add_cases(2_500, user_id=DOCTOR, case_summary=10_000 * "x")
        kept.append(requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR), stream=True))
        assert kept[0].raw.read(100)

    def test_that_leaves_a_transaction_open(medmitra):
        kept.append(psycopg2.connect(medmitra.database_url))
        cursor = kept[1].cursor()
        cursor.execute("SELECT count(*) FROM medmitra.cases")
        assert cursor.fetchone() == (0,)

    def test_that_terminates_other_backends(medmitra):
        cursor = kept[1].cursor()
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()")

    def test_that_sees_only_its_own_case(medmitra):
        added = medmitra.add_case(user_id=DOCTOR)
        assert requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR)).json() == {"cases": [added]}
""",
        )
        assert result.returncode == 0, result.stdout


class TestContextManager:
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
        result = run_script(script, tmp_path, DATABASE_URL="host=nowhere.invalid", MEDMITRA_THREADS="none")
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads(result.stdout)["cases"][0]["patient_name"] == "Ada"

    def test_log_returns_only_new_lines(self, medmitra: Harness) -> None:
        cases_of(medmitra, **{"X-Request-ID": "first"})
        assert '"request_id":"first"' in medmitra.log()
        cases_of(medmitra, **{"X-Request-ID": "second"})
        lines = medmitra.log().splitlines()
        assert [json.loads(line)["request_id"] for line in lines] == ["second"]

    def test_threads_can_share_the_harness(self, medmitra: Harness) -> None:
        def work(number: int) -> str:
            added = medmitra.add_case(user_id=DOCTOR, patient_name=f"Patient of {number}")
            return f"{added['patient_name']} {len(medmitra.log())}"

        with ThreadPoolExecutor(8) as pool:
            names = [text.rpartition(" ")[0] for text in pool.map(work, range(100))]
        assert names == [f"Patient of {number}" for number in range(100)]

    def test_a_call_does_not_get_the_result_of_an_interrupted_call(self, medmitra: Harness) -> None:
        class Interrupted(Exception):
            pass

        def interrupt(_number: int, _frame: object) -> None:
            raise Interrupted

        case_id = medmitra.add_case(user_id=DOCTOR)["case_id"]
        previous_handler = signal.signal(signal.SIGALRM, interrupt)
        try:
            with open_transaction(medmitra):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(Interrupted):
                    medmitra.update_case(case_id, status="interrupted")
        finally:
            signal.signal(signal.SIGALRM, previous_handler)
        assert medmitra.add_case(user_id=DOCTOR, patient_name="Next")["patient_name"] == "Next"
        assert medmitra.log().count("failed") == 0

    def test_a_forked_process_gets_an_error(self) -> None:
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
        # The child holds the harness's stdin open. harness() raises HarnessError if it must kill the process.
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    def test_modules_of_a_suite_do_not_affect_the_harness(self, server_dsn: str, tmp_path: Path) -> None:
        files = {"click": "raise SystemExit(1)", "resource": "print('noise')"}
        result = run_pytest(tmp_path, server_dsn, **files, test_dashboard=DASHBOARD)
        assert result.returncode == 0, result.stdout

    def test_ctrl_c_interrupts_only_the_tests(self, server_dsn: str, tmp_path: Path) -> None:
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
        result = run_script(script, tmp_path, MEDMITRA_TEST_DATABASE_URL=server_dsn)
        assert (result.stdout, result.stderr) == (f"{DOCTOR}\n", "")

    def test_the_error_names_an_invalid_setting(self) -> None:
        with (
            pytest.raises(HarnessError, match=r"Error: MEDMITRA_THREADS must be a number$"),
            harness({"MEDMITRA_THREADS": "many"}),
        ):
            pass

    def test_a_call_after_the_end_raises_an_error(self) -> None:
        with harness() as medmitra:
            pass
        for call in (medmitra.clear, lambda: medmitra.add_case(user_id=DOCTOR)):
            with pytest.raises(HarnessError, match="the harness has ended"):
                call()

    def test_a_named_server_keeps_no_database(self, server_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    def test_add_case_returns_the_case_of_the_response(self, medmitra: Harness) -> None:
        first = medmitra.add_case(user_id=DOCTOR)
        second = medmitra.add_case(user_id=uuid.UUID(DOCTOR))
        medmitra.add_case(user_id=uuid.uuid4())
        assert cases_of(medmitra) == [first, second]
        assert tuple(first) == KEYS
        assert (first["status"], first["case_summary"]) == ("pending", None)
        assert first["patient_name"] != second["patient_name"]

    def test_add_case_accepts_every_key(self, medmitra: Harness) -> None:
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

    def test_add_cases_returns_the_cases_of_the_response(self, medmitra: Harness) -> None:
        first = medmitra.add_case(user_id=DOCTOR)
        many = medmitra.add_cases(10_000, user_id=uuid.UUID(DOCTOR), status="failed", case_summary=None)
        last = medmitra.add_case(user_id=DOCTOR)
        assert cases_of(medmitra) == [first, *many, last]
        assert len({case["patient_name"] for case in cases_of(medmitra)}) == 10_002
        assert {case["status"] for case in many} == {"failed"}

    def test_add_cases_accepts_every_key_but_case_id(self, medmitra: Harness) -> None:
        values = {
            "patient_name": "100 % %s O'Connor",
            "patient_age": Age.ADULT,
            "patient_gender": "other",
            "case_summary": "Zoë",
            "status": "failed",
            "created_at": "2026-03-04T10:30:00Z",
            "updated_at": FakeDatetime(2026, 3, 4, 11, 45, tzinfo=timezone.utc),
        }
        stored = {**values, "updated_at": "2026-03-04T11:45:00Z", "user_id": DOCTOR}
        cases = medmitra.add_cases(2, user_id=DOCTOR, **values)
        assert [{**case, **stored} for case in cases] == cases == cases_of(medmitra)
        assert medmitra.add_cases(0, user_id=DOCTOR) == []

    @pytest.mark.parametrize(
        ("count", "values", "message"),
        [
            (-1, {}, "count must be an integer from 0 to 100000"),
            (100_001, {}, "count must be an integer from 0 to 100000"),
            (1.0, {}, "count must be"),
            (True, {}, "count must be"),
            ("2", {}, "count must be"),
            (2, {"case_id": uuid.UUID(int=7)}, "case_id cannot be the same for several cases"),
            (2, {"user_id": "me"}, "user_id must be a UUID"),
            (2, {"created_at": "some day"}, "invalid input syntax for type timestamp"),
        ],
    )
    def test_add_cases_rejects_invalid_values(
        self, medmitra: Harness, count: Any, values: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(HarnessError, match=message):
            medmitra.add_cases(count, **{"user_id": DOCTOR, **values})
        assert cases_of(medmitra) == []

    @pytest.mark.parametrize(
        ("key", "value", "stored"),
        [
            ("created_at", FakeDatetime(2026, 3, 4, 10, 30, tzinfo=timezone.utc), "2026-03-04T10:30:00Z"),
            ("created_at", FakeDatetime(2026, 3, 4, 10, 30), "2026-03-04T10:30:00Z"),
            ("created_at", FakeDate(2026, 3, 4), "2026-03-04T00:00:00Z"),
            ("status", Status.FAILED, "failed"),
            ("status", Text("failed"), "failed"),
            ("patient_age", Age.ADULT, 18),
            ("patient_age", Number(18), 18),
            ("case_id", DriversUUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ],
    )
    def test_values_may_be_of_subclasses(
        self, medmitra: Harness, key: str, value: object, stored: object
    ) -> None:
        case = medmitra.add_case(user_id=Text(DOCTOR), **{key: value})
        assert case[key] == stored
        if key != "case_id":
            case_id = DriversUUID(case["case_id"])
            assert medmitra.update_case(case_id, **{key: value})[key] == stored

    def test_update_case_changes_and_returns_the_case(self, medmitra: Harness) -> None:
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

    def test_clear_deletes_all_cases(self, medmitra: Harness) -> None:
        medmitra.add_case(user_id=DOCTOR)
        medmitra.clear()
        assert cases_of(medmitra) == []

    @pytest.mark.parametrize(
        ("values", "message"),
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
            (
                {"user_id": DOCTOR, "patient_name": object()},
                "cannot be sent as JSON: it is of the type object",
            ),
            ({"user_id": DOCTOR, "patient_name": "\ud800"}, "cannot be sent as JSON"),
        ],
    )
    def test_add_case_rejects_invalid_values(
        self, medmitra: Harness, values: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(HarnessError, match=message) as raised:
            medmitra.add_case(**values)
        assert "\n" not in str(raised.value)
        assert medmitra.add_case(user_id=DOCTOR)["user_id"] == DOCTOR  # the harness still works

    def test_update_case_rejects_an_unknown_case_id(self, medmitra: Harness) -> None:
        with pytest.raises(HarnessError, match="no case has this case_id"):
            medmitra.update_case(uuid.uuid4(), status="completed")

    def test_token_requires_a_secret(self, medmitra: Harness) -> None:
        with pytest.raises(HarnessError, match="MEDMITRA_JWT_SECRET is not set"):
            medmitra.token(DOCTOR)

    def test_clear_reports_locked_cases(self, medmitra: Harness) -> None:
        medmitra.add_case(user_id=DOCTOR)
        with (
            open_transaction(medmitra),
            pytest.raises(HarnessError, match="an open transaction has locked cases"),
        ):
            medmitra.clear()

    def test_database_url_accepts_other_statements(self, medmitra: Harness) -> None:
        medmitra.add_case(user_id=DOCTOR)
        with closing(psycopg2.connect(medmitra.database_url)) as owner:
            owner.autocommit = True
            execute(owner, "DELETE FROM medmitra.cases")
        assert cases_of(medmitra) == []

    def test_url_encodes_the_query(self, medmitra: Harness) -> None:
        url = medmitra.url("/cases/all_cases", user_id=uuid.UUID(DOCTOR), search="chest pain & more", limit=5)
        assert url == (
            f"{medmitra.base_url}/cases/all_cases?user_id={DOCTOR}&search=chest+pain+%26+more&limit=5"
        )
        assert medmitra.url("/") == f"{medmitra.base_url}/"


@pytest.fixture(scope="module")
def strict_server() -> Iterator[str]:
    """Run another team's server, which requires passwords and has the time zone Asia/Kolkata."""
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


class TestNamedServer:
    def test_it_can_require_passwords_and_have_any_time_zone(self, strict_server: str) -> None:
        with harness({TEST_DATABASE_URL: strict_server}) as medmitra:
            medmitra.add_case(user_id=DOCTOR, patient_name="Zoë", created_at="2026-03-04T10:30:00")
            (case,) = cases_of(medmitra)
            assert (case["patient_name"], case["created_at"]) == ("Zoë", "2026-03-04T10:30:00Z")
            left_open = psycopg2.connect(medmitra.database_url)
            name = left_open.info.dbname
        with closing(psycopg2.connect(strict_server)) as server:
            assert execute(server, "SELECT 1 FROM pg_database WHERE datname = %s", [name]) == []
        left_open.close()

    def test_the_user_can_come_from_pguser(self, strict_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGUSER", "postgres")
        parts = parse_dsn(strict_server)
        del parts["user"]
        with harness({TEST_DATABASE_URL: make_dsn(**parts)}) as medmitra:
            monkeypatch.delenv("PGUSER")
            with closing(psycopg2.connect(medmitra.database_url)) as owner:
                assert execute(owner, "SELECT current_user") == [("postgres",)]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"user": "builder"}, "MEDMITRA_TEST_DATABASE_URL must name a superuser"),
            ({"password": "another"}, "password authentication failed"),
            ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
        ],
    )
    def test_the_harness_reports_an_unsuitable_server(
        self, strict_server: str, change: dict[str, str], message: str
    ) -> None:
        with (
            pytest.raises(HarnessError, match=message),
            harness({TEST_DATABASE_URL: make_dsn(strict_server, **change)}),
        ):
            pass

    def test_a_server_that_does_not_respond_causes_a_timeout(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            dsn = f"host=127.0.0.1 port={silent.getsockname()[1]} user=u dbname=d"
            with pytest.raises(HarnessError, match="timeout expired"), harness({TEST_DATABASE_URL: dsn}):
                pass

    def test_only_one_harness_at_a_time_changes_its_roles(self, server_dsn: str) -> None:
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
    """Run the command ``harness``. Its embedded Postgres has its files below the folder."""
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


def send_line(process: subprocess.Popen[bytes], line: bytes = b"") -> Any:
    """Send a line, and return the next line of the output as JSON."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    return json.loads(process.stdout.readline())


@pytest.fixture(scope="module")
def process(server_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    with command(tmp_path_factory.mktemp("none"), MEDMITRA_TEST_DATABASE_URL=server_dsn) as process:
        assert send_line(process)["url"].startswith("http://127.0.0.1:")
        yield process


class TestTheCommand:
    def test_it_executes_lines_and_ends_at_the_end_of_stdin(self, folder: Path) -> None:
        with command(folder) as process:
            ready = send_line(process)
            assert ready.keys() == {"url", "database_url"}
            added = send_line(process, b'{"add_case": {"user_id": "%s"}}\n' % DOCTOR.encode())["result"]
            url = f"{ready['url']}/cases/all_cases?user_id={DOCTOR}"
            assert requests.get(url, timeout=TIMEOUT_SECONDS).json() == {"cases": [added]}
            more = send_line(process, b'{"add_cases": {"count": 2, "user_id": "%s"}}\n' % DOCTOR.encode())
            assert requests.get(url, timeout=TIMEOUT_SECONDS).json() == {"cases": [added, *more["result"]]}
            assert send_line(process, b'{"clear": {}}\n') == {"result": None}
            assert requests.get(url, timeout=TIMEOUT_SECONDS).json() == {"cases": []}
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(TIMEOUT_SECONDS) == 0
        assert not processes_below(folder)
        assert not list(folder.iterdir())

    def test_a_result_repeats_the_id_of_the_command(self, process: subprocess.Popen[bytes]) -> None:
        assert send_line(process, b'{"id": "a", "clear": {}}\n') == {"id": "a", "result": None}
        assert send_line(process, b'{"id": [1], "drop": {}}\n').keys() == {"id", "error"}

    def test_it_listens_on_the_given_address(self, server_dsn: str, tmp_path: Path) -> None:
        port = free_port()
        options = ("--listen", f"127.0.0.1:{port}")
        with command(tmp_path, *options, MEDMITRA_TEST_DATABASE_URL=server_dsn) as process:
            assert send_line(process)["url"] == f"http://127.0.0.1:{port}"
        result = run("harness", "--listen", "8000")
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert "--listen" in result.stderr

    @pytest.mark.parametrize(
        "line",
        [
            b"\n",
            b"x\n",
            b"[]\n",
            b"{}\n",
            b'{"clear": 1}\n',
            b'{"drop": {}}\n',
            b'{"add_cases": {}}\n',
            b'{"add_cases": {"count": 1}}\n',
            b'{"clear": {"all": true}}\n',
        ],
    )
    def test_an_invalid_line_gets_an_error(self, process: subprocess.Popen[bytes], line: bytes) -> None:
        assert send_line(process, line).keys() == {"error"}
        assert send_line(process, b'{"clear": {}}\n') == {"result": None}

    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_cleanly(self, server_dsn: str, tmp_path: Path, signum: signal.Signals) -> None:
        with command(tmp_path, MEDMITRA_TEST_DATABASE_URL=server_dsn) as process:
            send_line(process)
            process.send_signal(signum)
            assert process.wait(TIMEOUT_SECONDS) == 0
            assert process.stderr is not None
            assert b"Error" not in process.stderr.read()

    def test_it_ends_after_its_parent_process_was_killed(self, folder: Path) -> None:
        program = "import os, signal\nfrom medmitra_cases.testing import harness\n"
        program += (
            "with harness() as medmitra:\n    medmitra.clear()\n    os.kill(os.getpid(), signal.SIGKILL)"
        )
        killed = run_script(program, folder, TMPDIR=str(folder))
        assert killed.returncode == -signal.SIGKILL
        wait_until(lambda: not processes_below(folder) and not list(folder.glob("medmitra-*")))

    def test_it_ends_if_its_stdout_is_closed(self, server_dsn: str, tmp_path: Path) -> None:
        with command(tmp_path, MEDMITRA_TEST_DATABASE_URL=server_dsn) as process:
            send_line(process)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.close()
            process.stdin.write(b'{"clear": {}}\n')
            process.stdin.flush()
            assert process.wait(TIMEOUT_SECONDS) == 0
