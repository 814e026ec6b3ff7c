"""The embedded Postgres: keeps its data, leaves nothing running, says in one line why it does not start."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from medmitra_cases.embedded import postgres, process, programs
from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.errors import EmbeddedPostgresError
from medmitra_cases.testing.postgres import open_folder
from tests.support.factories import execute
from tests.support.processes import processes_below


def ask(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        return execute(connection, statement)


@pytest.fixture(scope="module")
def kept_folder() -> Iterator[Path]:
    """Where a server has been before, but for the first test."""
    with open_folder() as path:
        yield path


def test_data_and_address_are_the_same_next_time(kept_folder: Path) -> None:
    with embedded_postgres(kept_folder) as first:
        ask(first, "CREATE TABLE kept AS SELECT 42")
    assert not processes_below(kept_folder)
    with embedded_postgres(kept_folder) as second:
        assert ask(second, "TABLE kept") == [(42,)]
    assert first == second


def test_an_interrupted_initdb_does_not_pass_for_a_database(folder: Path) -> None:
    with embedded_postgres(folder):
        (data,) = folder.glob("data-*")
    unfinished = data.rename(data.with_suffix(".unfinished"))
    (unfinished / "PG_VERSION").unlink()
    with embedded_postgres(folder) as dsn:
        assert ask(dsn, "SELECT 1") == [(1,)]
    assert not unfinished.exists()


def test_it_listens_on_no_network(kept_folder: Path) -> None:
    with embedded_postgres(kept_folder) as dsn:
        assert ask(dsn, "SHOW listen_addresses") == [("",)]


def test_it_ends_even_if_it_does_not_shut_down_in_time(
    kept_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_SECONDS", 0)
    with embedded_postgres(kept_folder) as dsn:
        ask(dsn, "SELECT 1")
    assert not processes_below(kept_folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")
def test_programs_that_only_root_reaches_are_copied(
    kept_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = programs.find_package()
    for part in installed.folder.glob("embedded_postgres*"):
        shutil.copytree(part, tmp_path / part.name)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(postgres, "find_package", lambda: installed._replace(folder=tmp_path))
    with embedded_postgres(kept_folder) as dsn:
        assert ask(dsn, "SELECT 1") == [(1,)]
        assert any(str(kept_folder / "programs") in process for process in processes_below(kept_folder))


def test_a_path_too_long_for_a_socket_is_one_line(folder: Path) -> None:
    with (
        pytest.raises(EmbeddedPostgresError, match="too long") as raised,
        embedded_postgres(folder / ("x" * 100)),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_without_the_package_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PACKAGE", "no-such-package")
    with (
        pytest.raises(EmbeddedPostgresError, match="pip install no-such-package"),
        embedded_postgres(folder),
    ):
        pass
