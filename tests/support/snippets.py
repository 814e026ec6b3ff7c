"""Takes the code out of docs/clients.md, and runs it as a reader would."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.paths import DOCS, TYPESCRIPT
from tests.support.processes import run_program
from tests.support.programs import tool

CLIENTS = DOCS / "clients.md"
# Where that page says that the service is.
SERVICE = "http://127.0.0.1:8000"
# A reader's also has medmitra-cases, python and pytest, and TypeScript's compiler.
PATH = os.pathsep.join(
    [
        str(Path(sys.executable).parent),
        str(TYPESCRIPT / "node_modules" / ".bin"),
        os.environ["PATH"],
    ]
)


@dataclass(frozen=True)
class Snippet:
    """A block of code, with the heading that it is under and its language."""

    section: str
    language: str
    code: str

    @property
    def file_name(self) -> str:
        """The name that its first line has, if it is a file."""
        name = re.match(r"(?:#|//) (\S+\.\w+)\n", self.code)
        return name[1] if name else ""

    @property
    def steps(self) -> list[tuple[str, str]]:
        """If it is a session: each command, and what is said to come of it."""
        return re.findall(r"^\$ ((?:.*\\\n)*.*\n)((?:(?!\$ ).*\n)*)", self.code, re.MULTILINE)


def snippets() -> list[Snippet]:
    """All of them, in order."""
    found, section = [], ""
    for heading, language, code in re.findall(
        r"^#+ (.+)$|^```(.*)\n((?s:.*?))^```$", CLIENTS.read_text(), re.MULTILINE
    ):
        section = heading or section
        if not heading:
            found.append(Snippet(section, language, code))
    return found


def write_files(folder: Path, service: str) -> None:
    """Write the files, for a service that is elsewhere."""
    for snippet in snippets():
        if snippet.file_name:
            (folder / snippet.file_name).write_text(snippet.code.replace(SERVICE, service))


def run_sessions(section: str, folder: Path, service: str, **variables: str) -> None:
    """Type a section's commands into one shell; they must print what the page has (``…`` being anything)."""
    steps = [
        step
        for snippet in snippets()
        if (snippet.section, snippet.language) == (section, "console")
        for step in snippet.steps
    ]
    # What another command prints begins after a NUL.
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


def run_python_session(section: str, folder: Path, service: str, **variables: str) -> None:
    """Tell Python what a section has the reader tell it; it must answer what the page has."""
    told = "\n".join(
        snippet.code for snippet in snippets() if (snippet.section, snippet.language) == (section, "pycon")
    )
    session = folder / "session.txt"
    session.write_text(told.replace(SERVICE, service))
    ended = run_program([sys.executable, "-m", "doctest", session], variables, cwd=folder)
    assert ended.returncode == 0, (ended.stdout, ended.stderr)


def _without_spaces(text: str) -> str:
    """The page breaks long lines where they fit it."""
    return "".join(text.split())
