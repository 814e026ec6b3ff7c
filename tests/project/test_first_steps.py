"""The first steps with a checkout: make without its requirements, and the source distribution."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import serve

MAKE_VARIABLES = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}

# Interpreters with what a machine may lack. Each is a shell script.
OLD = 'case "$1" in -c) exit 1;; esac'
# Debian's Python without the package python3-venv leaves an environment without pip.
WITHOUT_VENV = 'case "$2" in venv) mkdir -p .venv/bin; touch .venv/bin/python; echo a; echo b; exit 1;; esac'
COMPLETE = """
echo "$@" >> calls
case "$2" in venv) rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python;; esac
"""


def make_run(folder: Path, interpreter: str) -> subprocess.CompletedProcess[str]:
    """Run ``make run`` in this folder, with a script as the interpreter."""
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "requirements", folder / "requirements", dirs_exist_ok=True)
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{interpreter}\n")
    script.chmod(0o755)
    # `make test` hands its own options to each make below it.
    environ = {name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES}
    return subprocess.run(
        ["make", "run", f"PYTHON={script}"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("interpreter", "line"),
    [
        (OLD, "This needs Python 3.10 or newer. Name it: make PYTHON=python3.12"),
        (WITHOUT_VENV, "{python} cannot create the environment .venv: install python3-venv"),
    ],
    ids=["an old Python", "without python3-venv"],
)
def test_make_says_in_one_line_what_is_missing(tmp_path: Path, interpreter: str, line: str) -> None:
    for _ in range(2):  # the first attempt may leave something behind
        ended = make_run(tmp_path, interpreter)
        assert ended.returncode != 0
        assert ended.stdout == line.format(python=tmp_path / "python") + "\n"
        assert "Traceback" not in ended.stderr
        assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("left", ["nothing", "without pip", "without python", "of another Python"])
def test_make_replaces_an_incomplete_environment(tmp_path: Path, left: str) -> None:
    programs = tmp_path / ".venv" / "bin"
    if left != "nothing":
        programs.mkdir(parents=True)
    if left == "without pip":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", programs.parent], check=True)
    elif left == "of another Python":
        (programs / "python").symlink_to("/nowhere/python3.9")
    assert "medmitra-cases demo" in make_run(tmp_path, COMPLETE).stdout
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call for call in calls if " venv " in call] == ["-m venv --clear .venv"]


def test_the_source_distribution_has_all_files_and_passes_its_tests_of_documents(tmp_path: Path) -> None:
    """Run one file of tests there. All of them would take minutes."""
    tree = tmp_path / "tree"
    generated = (".*venv*", "node_modules", "__pycache__", ".git", "*.egg-info", "build", "dist", ".*_cache")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*generated))
    run_python(tree, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path))
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    folder = archive.with_name(archive.name.removesuffix(".tar.gz"))
    folders = ("benchmarks", "deploy", "docs", "requirements", "sql", "tests")
    paths = [
        path.relative_to(tree) for name in folders for path in (tree / name).rglob("*") if path.is_file()
    ]
    assert [path for path in paths if not (folder / path).exists()] == []
    run_python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/project/test_documents.py")


def run_python(folder: Path, *arguments: str, **variables: str) -> None:
    """Run Python in this folder, with the modules there."""
    environ = {**os.environ, "PYTHONPATH": str(folder), **variables}
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("exists", [True, False])
def test_the_metrics_folder_of_another_program_is_not_used(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "metrics"
    if exists:
        folder.mkdir()
    others = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "MEDMITRA_ADMIN_LISTEN": "127.0.0.1:0"}
    with serve("host=127.0.0.1 port=1", **others) as server:
        assert server.get("/openapi.json")[0].status == 200
        assert server.metric("medmitra_database_retries_total") == 0
    run_python(ROOT, "-c", "import wsgi; wsgi.app", **others, DATABASE_URL="host=127.0.0.1 port=1")
    assert [*tmp_path.rglob("*")] == [folder] * exists
