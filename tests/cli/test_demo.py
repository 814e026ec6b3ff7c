"""The demo: its database can be written, and its end is reported."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import psycopg2
import pytest

from medmitra_cases.testing.postgres import open_folder
from tests.support.factories import DOCTOR, execute
from tests.support.processes import (
    COMMAND,
    Running,
    processes_below,
    run_program,
    running,
    wait_until,
)
from tests.support.snippets import PATH

CASES_URL = f"/cases/all_cases?user_id={DOCTOR}"


@pytest.fixture(scope="module")
def data_home() -> Iterator[Path]:
    """Yield the data folder of all demos of the module; its name needs quotation marks in a shell."""
    with open_folder() as folder:
        yield folder / "Ada's data"


def demo(data_home: Path) -> AbstractContextManager[Running]:
    return running(COMMAND, "demo", "--listen", "127.0.0.1:0", XDG_DATA_HOME=str(data_home))


def pid_of_postgres(data_home: Path) -> int:
    (status,) = data_home.glob("medmitra-cases/demo/data-*/postmaster.pid")
    return int(status.read_text().split()[0])


def shown(server: Running) -> list[str]:
    response, body = server.get(CASES_URL)
    assert response.status == 200, body
    return [case["patient_name"] for case in json.loads(body)["cases"]]


def test_the_printed_line_lets_programs_write_to_the_database(data_home: Path) -> None:
    with demo(data_home) as server:
        line = server.wait_for("To write to its database: (export DATABASE_URL=.*)")[1]
        script = f"""{line}
medmitra-cases load-sample --user {DOCTOR} --cases 1
psql "$DATABASE_URL" -qc "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender)
    VALUES ('{DOCTOR}', 'Ada', 40, 'female')"
"""
        before = shown(server)
        written = run_program(["bash", "-euc", script], {"PATH": PATH})
        assert (written.returncode, written.stderr) == (0, "")
        assert [len(shown(server)), shown(server)[-1]] == [len(before) + 2, "Ada"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGQUIT])
def test_the_demo_ends_if_its_postgres_ends(data_home: Path, number: signal.Signals) -> None:
    with demo(data_home) as server:
        os.kill(pid_of_postgres(data_home), number)
        assert server.wait_for_its_end() == 1
    assert server.printed.splitlines()[-1].startswith("Error: Postgres has ended unexpectedly, with status ")
    assert "Traceback" not in server.printed
    wait_until(lambda: not processes_below(data_home))


def test_the_demo_goes_on_if_its_postgres_recovers(data_home: Path) -> None:
    """Postgres restarts itself if one of its processes has crashed."""
    with demo(data_home) as server:
        before = shown(server)
        uri = server.wait_for("export DATABASE_URL='(.*)'")[1]
        with closing(psycopg2.connect(uri)) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            with pytest.raises(psycopg2.OperationalError):
                execute(connection, "SELECT 1")
        wait_until(lambda: server.get(CASES_URL)[0].status == 200)
        assert shown(server) == before
        assert server.end() == 0
