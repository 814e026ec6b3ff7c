"""The embedded Postgres keeps its data, leaves no process behind, and reports a failed start in one line."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from medmitra_cases.embedded import postgres, process, programs
from medmitra_cases.embedded.postgres import embedded_postgres
from medmitra_cases.errors import EmbeddedPostgresError
from medmitra_cases.testing.postgres import open_folder
from tests.support.factories import execute
from tests.support.processes import processes_below


def query(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        return execute(connection, statement)


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    """Yield one folder for all tests of the module, so that later tests find the data of the first test."""
    with open_folder() as path:
        yield path


def test_a_second_start_keeps_data_and_address(shared_folder: Path) -> None:
    with embedded_postgres(shared_folder) as first:
        query(first, "CREATE TABLE kept AS SELECT 42")
    assert not processes_below(shared_folder)
    with embedded_postgres(shared_folder) as second:
        assert query(second, "TABLE kept") == [(42,)]
    assert first == second


def test_the_next_start_removes_an_interrupted_initdb(folder: Path) -> None:
    with embedded_postgres(folder):
        (data,) = folder.glob("data-*")
    unfinished = data.rename(data.with_suffix(".unfinished"))
    (unfinished / "PG_VERSION").unlink()
    with embedded_postgres(folder) as dsn:
        assert query(dsn, "SELECT 1") == [(1,)]
    assert not unfinished.exists()


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in (folder, *folder.glob("*.log"))}


def test_other_users_can_read_neither_the_log_nor_the_folder(folder: Path) -> None:
    """The log quotes statements that failed, with their data."""
    for name in ("postgres.log", "initdb.log"):  # as an earlier version left them
        (folder / name).touch(mode=0o644)
    folder.chmod(0o755)
    with embedded_postgres(folder) as dsn:
        with pytest.raises(psycopg2.Error):
            query(dsn, "SELECT 'Zebediah Quux'::integer")
        assert "Zebediah Quux" in (folder / "postgres.log").read_text()
        # If root runs it, the group of Postgres's account may pass through the folder, but not list it.
        closed = "0o710" if os.geteuid() == 0 else "0o700"
        assert modes(folder) == {folder.name: closed, "postgres.log": "0o600", "initdb.log": "0o600"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("user", ["nobody", "12345"])
def test_another_user_is_refused(folder: Path, user: str) -> None:
    as_user = ("setpriv", f"--reuid={user}", "--regid=12345", "--clear-groups", "--")
    with embedded_postgres(folder):
        for command in (("cat", folder / "postgres.log"), ("ls", folder), ("ls", folder / "socket")):
            ended = subprocess.run((*as_user, *command), capture_output=True, text=True, check=False)
            assert "Permission denied" in ended.stderr
            assert ended.stdout == ""


def test_a_user_who_is_not_root_keeps_the_folder_private(folder: Path) -> None:
    postgres._make_folder(None, folder / "a" / "b")
    assert modes(folder / "a" / "b") == {"b": "0o700"}
    folder.chmod(0o755)
    postgres._make_folder(None, folder)
    assert modes(folder) == {folder.name: "0o700"}


def test_the_log_replaces_a_link(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("kept")
    (folder / "postgres.log").symlink_to(target)
    with embedded_postgres(folder):
        assert not (folder / "postgres.log").is_symlink()
    assert target.read_text() == "kept"


def test_postgres_does_not_listen_on_tcp(shared_folder: Path) -> None:
    with embedded_postgres(shared_folder) as dsn:
        assert query(dsn, "SHOW listen_addresses") == [("",)]


def test_postgres_ends_even_if_its_shutdown_times_out(
    shared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_SECONDS", 0)
    with embedded_postgres(shared_folder) as dsn:
        query(dsn, "SELECT 1")
    assert not processes_below(shared_folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
def test_programs_that_only_root_can_run_are_copied(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = programs.find_package()
    for part in installed.folder.glob("embedded_postgres*"):
        shutil.copytree(part, tmp_path / part.name)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(postgres, "find_package", lambda: installed._replace(folder=tmp_path))
    with embedded_postgres(shared_folder) as dsn:
        assert query(dsn, "SELECT 1") == [(1,)]
        assert any(str(shared_folder / "programs") in command for command in processes_below(shared_folder))


@pytest.mark.parametrize("name", ["x" * 150, "é" * 75, "x" * 50 + "/" + "y" * 99])
def test_a_long_path_is_no_obstacle(folder: Path, name: str) -> None:
    """A path of a Unix socket has at most 107 bytes."""
    for _ in range(2):  # the second start finds the data
        with embedded_postgres(folder / name) as dsn:
            assert query(dsn, "CREATE TABLE IF NOT EXISTS kept (); SELECT 1") == [(1,)]
            sockets = Path(parse_dsn(dsn)["host"])
            assert oct(sockets.stat().st_mode & 0o777) == "0o700"
        assert not sockets.exists()
        assert not processes_below(folder)


@pytest.mark.parametrize("excess", [0, 1])
def test_the_longest_path_of_a_socket_is_used(folder: Path, excess: int) -> None:
    longest = 107 - len("/socket/.s.PGSQL.5432")
    path = folder / ("x" * (longest - len(str(folder)) - 1 + excess))
    with embedded_postgres(path) as dsn:
        assert query(dsn, "SELECT 1") == [(1,)]
        assert (Path(parse_dsn(dsn)["host"]) == path / "socket") == (excess == 0)


def test_the_error_names_the_package_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PACKAGE", "no-such-package")
    with (
        pytest.raises(EmbeddedPostgresError, match="pip install no-such-package"),
        embedded_postgres(folder),
    ):
        pass
