"""What the command says of itself, and of mistakes: short, true, in one line."""

import os
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from medmitra_cases.cli.main import main
from medmitra_cases.settings.schema import SettingsSchema
from tests.support.paths import DOCS
from tests.support.processes import COMMAND, run, run_program
from tests.support.terminals import run_on_terminal

COMMANDS = sorted(main.commands)
SETTINGS = {field.data_key for field in SettingsSchema().fields.values()}
NO_SETTINGS = {"MEDMITRA_TEST_DATABASE_URL", "NO_COLOR", "XDG_DATA_HOME"}
RED = "\x1b[31m"


def help_of(*command: str) -> str:
    """The help of a command, on a terminal of 80 columns."""
    result = CliRunner().invoke(main, [*command, "--help"], env={"COLUMNS": "80"}, prog_name="medmitra-cases")
    assert result.exit_code == 0
    return result.stdout


HELPS = [pytest.param((), id="medmitra-cases"), *((name,) for name in COMMANDS)]


@pytest.mark.parametrize("command", HELPS)
def test_help_fits_80_columns(command: tuple[str, ...]) -> None:
    assert max(map(len, help_of(*command).splitlines())) <= 80


def test_no_command_is_described_in_half_a_sentence() -> None:
    listed = help_of().partition("\nCommands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(main.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def described_variables(*command: str) -> set[str]:
    """The variables in the table of a command's help."""
    _, _, table = help_of(*command).partition("\nEnvironment:\n")
    return set(re.findall(r"^  ([A-Z_]+)(?:  |$)", table.partition("\nExit status:\n")[0], re.MULTILINE))


@pytest.mark.parametrize("command", HELPS)
def test_help_names_variables_that_there_are(command: tuple[str, ...]) -> None:
    described = described_variables(*command)
    assert described
    assert described <= SETTINGS | NO_SETTINGS
    assert set(re.findall(r"\bMEDMITRA_\w+", help_of(*command))) <= SETTINGS | NO_SETTINGS


def test_help_of_serve_describes_every_setting() -> None:
    assert described_variables("serve") == SETTINGS


@pytest.mark.parametrize("command", HELPS)
def test_examples_are_commands_that_there_are(command: tuple[str, ...]) -> None:
    _, _, rest = help_of(*command).partition("\nExamples:\n")
    text = rest.partition("\n\nE")[0].replace("\\\n", "")
    examples = re.findall(r"medmitra-cases ([^&)#\n]+)", text)
    assert examples
    for example in examples:
        name, *arguments = shlex.split(example.replace("$user", "b8acad4b-4944-4d66-b405-de70886e7248"))
        main.commands[name].make_context(name, arguments)  # or else a click.UsageError


def test_help_tells_the_exit_status() -> None:
    table = help_of().partition("\nExit status:\n")[2]
    assert re.findall(r"^  (\d[\d, ]*?)  ", table, re.MULTILINE) == ["0", "1", "2", "130, 143"]


def test_help_is_what_one_gets_without_asking() -> None:
    asked = run("--help")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert run("-h").stdout == run().stdout == asked.stdout
    assert run("serve", "-h").stdout == run("serve", "--help").stdout


def test_the_page_lists_every_command_in_this_order() -> None:
    rows = re.findall(r"^\| `medmitra-cases ([a-z-]+)", (DOCS / "settings.md").read_text(), re.MULTILINE)
    assert rows == main.list_commands(click.Context(main))


@pytest.mark.parametrize(
    ("arguments", "named", "see"),
    [
        (["chek"], "chek", "medmitra-cases --help"),
        (["--nope"], "--nope", "medmitra-cases --help"),
        (["serve", "now"], "now", "medmitra-cases serve --help"),
        (["serve", "--listen", "8000"], "--listen", "medmitra-cases serve --help"),
        (["token"], "--user", "medmitra-cases token --help"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], named: str, see: str) -> None:
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(rf"Error: .*{named}\b.* \(see {see}\)\n", ended.stderr)


def test_a_folder_that_cannot_be_made_is_one_line() -> None:
    ended = run("demo", XDG_DATA_HOME="/dev/null")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "Error: /dev/null/medmitra-cases: Not a directory\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["serve", "--help"]])
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = run_program([COMMAND, *arguments], {}, stdout=full)
    assert (ended.returncode, ended.stderr) == (1, "Error: No space left on device\n")


def test_a_reader_who_has_seen_enough_is_told_nothing_more() -> None:
    nobody_reads, ours = os.pipe()
    os.close(nobody_reads)
    with os.fdopen(ours, "w") as pipe:
        ended = run_program([COMMAND, "--help"], {}, stdout=pipe)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_character_that_the_terminal_lacks_is_a_question_mark() -> None:
    ended = run("check", "--help", PYTHONIOENCODING="latin-1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "? passed" in ended.stdout


def test_errors_are_red_on_a_terminal() -> None:
    assert run_on_terminal("serve") == (
        1,
        run("serve").stderr.replace("Error:", f"{RED}Error:\x1b[0m")[:-1] + "\r\n",
    )
    assert RED in run_on_terminal("chek")[1]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"NO_COLOR": "0"}, {"TERM": "dumb"}])
def test_colours_can_be_declined(variables: dict[str, str]) -> None:
    assert "\x1b" not in run_on_terminal("serve", **variables)[1]
    assert "\x1b" not in run_on_terminal("chek", **variables)[1]
