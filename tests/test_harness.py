"""The harness, used as other teams do: by pytest, by a script, by a program in any language."""

import json
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from textwrap import dedent
from typing import Any

import psycopg2
import pytest
import requests

from medmitra_cases.testing import Harness, HarnessError, harness
from tests.factories import DOCTOR, KEYS, execute
from tests.processes import COMMAND, PATIENCE_SECONDS, environment, processes_below, wait_until

# As the README has them.
IN_YOUR_TESTS = (Path(__file__).parents[1] / "README.md").read_text().partition("## In your tests")[2]
DASHBOARD, CONFTEST, *_ = re.findall(r"^```python\n(.+?)^```$", IN_YOUR_TESTS, re.MULTILINE | re.DOTALL)


def cases_of(medmitra: Harness, user_id: str = DOCTOR, **headers: str) -> Any:
    answer = requests.get(
        medmitra.url("/cases/all_cases", user_id=user_id), headers=headers, timeout=PATIENCE_SECONDS
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
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", *plugins, *arguments],
        cwd=folder,
        env=environment(MEDMITRA_TEST_DATABASE_URL=server_dsn),
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_SECONDS,
        check=False,
    )


class TestTheFixture:
    def test_a_dashboard_in_two_lines(self, tmp_path: Path) -> None:
        ended = pytest_run(tmp_path, "", test_dashboard=DASHBOARD)
        assert ended.returncode == 0, ended.stdout
        assert "1 passed" in ended.stdout

    def test_each_test_has_its_own_cases_on_each_worker(self, server_dsn: str, tmp_path: Path) -> None:
        crowd = DASHBOARD + dedent("""
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

    def test_a_conftest_may_choose_the_services_settings(self, server_dsn: str, tmp_path: Path) -> None:
        ended = pytest_run(
            tmp_path,
            server_dsn,
            conftest=CONFTEST,
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
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=environment(DATABASE_URL="host=nowhere.invalid", MEDMITRA_THREADS="none"),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert json.loads(ended.stdout)["cases"][0]["patient_name"] == "Ada"

    def test_what_was_logged_can_be_read(self, medmitra: Harness) -> None:
        cases_of(medmitra, **{"X-Request-ID": "first"})
        assert '"request_id":"first"' in medmitra.log()
        cases_of(medmitra, **{"X-Request-ID": "second"})
        lines = medmitra.log().splitlines()
        assert [json.loads(line)["request_id"] for line in lines] == ["second"]

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
        with pytest.raises(HarnessError, match="there is no such case"):
            medmitra.update_case(uuid.uuid4(), status="completed")

    def test_a_token_takes_a_secret(self, medmitra: Harness) -> None:
        with pytest.raises(HarnessError, match="MEDMITRA_JWT_SECRET is not set"):
            medmitra.token(DOCTOR)

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


@contextmanager
def command(folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command ``harness``, whose Postgres lives below the folder."""
    with subprocess.Popen(
        [COMMAND, "harness"],
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
            assert requests.get(url, timeout=PATIENCE_SECONDS).json() == {"cases": [added]}
            assert said(process, b'{"clear": {}}\n') == {"result": None}
            assert requests.get(url, timeout=PATIENCE_SECONDS).json() == {"cases": []}
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE_SECONDS) == 0
        assert not processes_below(folder)
        assert not list(folder.iterdir())

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

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_a_signal_ends_it_in_peace(self, server_dsn: str, tmp_path: Path, number: signal.Signals) -> None:
        with command(tmp_path, MEDMITRA_TEST_DATABASE_URL=server_dsn) as process:
            said(process)
            process.send_signal(number)
            assert process.wait(PATIENCE_SECONDS) == 0
            assert process.stderr is not None
            assert b"Error" not in process.stderr.read()

    def test_it_does_not_outlive_a_program_that_is_killed(self, folder: Path) -> None:
        program = "import os, signal\nfrom medmitra_cases.testing import harness\n"
        program += (
            "with harness() as medmitra:\n    medmitra.clear()\n    os.kill(os.getpid(), signal.SIGKILL)"
        )
        killed = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(TMPDIR=str(folder)),
            timeout=PATIENCE_SECONDS,
            check=False,
        )
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
            assert process.wait(PATIENCE_SECONDS) == 0
