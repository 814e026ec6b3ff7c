"""The help of the command, and its one-line error messages."""

import re
import shlex
import sys

import click
import pytest
from click.testing import CliRunner

from medmitra_cases.cli.main import main
from medmitra_cases.settings.schema import SettingsSchema
from tests.support.paths import DOCS
from tests.support.processes import run, run_program
from tests.support.terminals import run_on_terminal

COMMANDS = sorted(main.commands)
SETTINGS = {field.data_key for field in SettingsSchema().fields.values()}
OTHER_VARIABLES = {"MEDMITRA_TEST_DATABASE_URL", "NO_COLOR", "XDG_DATA_HOME"}
RED = "\x1b[31m"


def help_of(*command: str) -> str:
    """Return the help of a command for a terminal of 80 columns."""
    result = CliRunner().invoke(main, [*command, "--help"], env={"COLUMNS": "80"}, prog_name="medmitra-cases")
    assert result.exit_code == 0
    return result.stdout


ALL_COMMANDS = [pytest.param((), id="medmitra-cases"), *((name,) for name in COMMANDS)]


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_help_fits_80_columns(command: tuple[str, ...]) -> None:
    assert max(map(len, help_of(*command).splitlines())) <= 80


def test_help_describes_each_command_in_a_whole_sentence() -> None:
    listed = help_of().partition("\nCommands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(main.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def described_variables(*command: str) -> set[str]:
    """Return the variables in the "Environment" table of a command's help."""
    _, _, table = help_of(*command).partition("\nEnvironment:\n")
    return set(re.findall(r"^  ([A-Z_]+)(?:  |$)", table.partition("\nExit status:\n")[0], re.MULTILINE))


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_help_names_only_existing_variables(command: tuple[str, ...]) -> None:
    described = described_variables(*command)
    assert described
    assert described <= SETTINGS | OTHER_VARIABLES
    assert set(re.findall(r"\bMEDMITRA_\w+", help_of(*command))) <= SETTINGS | OTHER_VARIABLES


def test_help_of_serve_describes_every_setting() -> None:
    assert described_variables("serve") == SETTINGS


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_examples_in_the_help_are_valid_commands(command: tuple[str, ...]) -> None:
    _, _, rest = help_of(*command).partition("\nExamples:\n")
    text = rest.partition("\n\nE")[0].replace("\\\n", "")
    examples = re.findall(r"medmitra-cases ([^&)#\n]+)", text)
    assert examples
    for example in examples:
        name, *arguments = shlex.split(example.replace("$user", "b8acad4b-4944-4d66-b405-de70886e7248"))
        main.commands[name].make_context(name, arguments)  # raises click.UsageError if the example is invalid


def test_help_lists_the_exit_statuses() -> None:
    table = help_of().partition("\nExit status:\n")[2]
    assert re.findall(r"^  (\d[\d, ]*?)  ", table, re.MULTILINE) == ["0", "1", "2", "130, 143"]


def test_the_command_prints_its_help_without_arguments() -> None:
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert run("-h").stdout == run().stdout == result.stdout
    assert run("serve", "-h").stdout == run("serve", "--help").stdout


@pytest.mark.parametrize("arguments", [(), ("serve", "--help"), ("chek",), ("check",)])
def test_python_m_runs_the_command(arguments: tuple[str, ...]) -> None:
    by_module = run_program([sys.executable, "-m", "medmitra_cases", *arguments], {})
    by_name = run(*arguments)
    assert (by_module.returncode, by_module.stdout, by_module.stderr) == (
        by_name.returncode,
        by_name.stdout,
        by_name.stderr,
    )


def test_the_settings_page_lists_every_command_in_order() -> None:
    rows = re.findall(r"^\| `medmitra-cases ([a-z-]+)", (DOCS / "settings.md").read_text(), re.MULTILINE)
    assert rows == main.list_commands(click.Context(main))


@pytest.mark.parametrize(
    ("arguments", "word", "help_command"),
    [
        (["chek"], "chek", "medmitra-cases --help"),
        (["--nope"], "--nope", "medmitra-cases --help"),
        (["serve", "now"], "now", "medmitra-cases serve --help"),
        (["serve", "--listen", "8000"], "--listen", "medmitra-cases serve --help"),
        (["token"], "--user", "medmitra-cases token --help"),
    ],
)
def test_wrong_usage_causes_a_one_line_error(arguments: list[str], word: str, help_command: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(rf"Error: .*{word}\b.* \(see {help_command}\)\n", result.stderr)


def test_demo_reports_an_impossible_data_folder_in_one_line() -> None:
    result = run("demo", XDG_DATA_HOME="/dev/null")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: /dev/null/medmitra-cases: Not a directory\n"


def test_help_replaces_characters_that_the_encoding_lacks() -> None:
    result = run("check", "--help", PYTHONIOENCODING="latin-1")
    assert (result.returncode, result.stderr) == (0, "")
    assert "? passed" in result.stdout


def test_errors_are_red_on_a_terminal() -> None:
    assert run_on_terminal("serve") == (
        1,
        run("serve").stderr.replace("Error:", f"{RED}Error:\x1b[0m")[:-1] + "\r\n",
    )
    assert RED in run_on_terminal("chek")[1]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"NO_COLOR": "0"}, {"TERM": "dumb"}])
def test_variables_turn_colours_off(variables: dict[str, str]) -> None:
    assert "\x1b" not in run_on_terminal("serve", **variables)[1]
    assert "\x1b" not in run_on_terminal("chek", **variables)[1]
