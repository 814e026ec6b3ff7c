"""The environment: empty values, leftovers of file formats, files of secrets, misspelt names."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from medmitra_cases import create_app
from medmitra_cases.errors import SettingsError
from medmitra_cases.settings import SettingsSchema, unknown_variables
from medmitra_cases.settings.settings import Settings
from tests.support.processes import COMMAND, run, run_program, serve
from tests.support.tokens import SECRET

URL = "postgresql://reader:hunter2@db.example/clinic"
KEYS = "https://keys.example/keys"
ISSUER = "https://issuer.example"
TOKENS = {"DATABASE_URL": URL, "MEDMITRA_JWT_SECRET": SECRET}
GOOD = {
    "DATABASE_URL": URL,
    "MEDMITRA_JWT_SECRET": SECRET,
    "MEDMITRA_JWT_SECRET_PREVIOUS": SECRET[::-1],
    "MEDMITRA_JWKS_URL": KEYS,
    "MEDMITRA_JWT_AUDIENCE": "clinic",
    "MEDMITRA_JWT_ISSUER": ISSUER,
    "MEDMITRA_CORS_ORIGINS": "https://app.example",
}
SECRETS = ("DATABASE_URL", "MEDMITRA_JWT_SECRET", "MEDMITRA_JWT_SECRET_PREVIOUS")


def mistakes(environ: dict[str, str]) -> list[str]:
    """Return the mistakes in an environment, none of which repeats a value."""
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ(environ)
    text = str(raised.value)
    assert "\n" not in text
    for value in (URL, "hunter2", SECRET, SECRET[::-1], KEYS, ISSUER):
        assert value not in text
    return text.split("; ")


class TestEmpty:
    @pytest.mark.parametrize(
        "name",
        [
            "MEDMITRA_JWT_SECRET",
            "MEDMITRA_JWT_SECRET_PREVIOUS",
            "MEDMITRA_JWKS_URL",
            "MEDMITRA_JWT_AUDIENCE",
            "MEDMITRA_JWT_ISSUER",
            *(f"{name}_FILE" for name in SECRETS),
        ],
    )
    def test_it_is_no_way_to_do_without(self, name: str) -> None:
        environ = {**GOOD, name: ""}
        if name.endswith("_FILE"):
            del environ[name.removesuffix("_FILE")]
        expected = f"{name} is set but empty: remove the variable, or give it a value"
        assert expected in mistakes(environ)

    def test_trust_is_not_given_by_an_empty_variable(self) -> None:
        assert mistakes({"DATABASE_URL": URL, "MEDMITRA_TRUST_USER_ID": ""}) == [
            "MEDMITRA_TRUST_USER_ID must be true or false"
        ]

    def test_the_process_does_not_start(self) -> None:
        for name in ("MEDMITRA_JWT_SECRET", "MEDMITRA_JWKS_URL"):
            ended = run("serve", DATABASE_URL="host=127.0.0.1", **{name: ""})
            assert (ended.returncode, ended.stdout) == (1, "")
            assert (
                ended.stderr == f"Error: {name} is set but empty: remove the variable, or give it a value\n"
            )

    def test_other_settings_have_their_default(self) -> None:
        others = {str(field.data_key) for field in SettingsSchema().fields.values()}
        empty = dict.fromkeys(others - GOOD.keys() - {"MEDMITRA_TRUST_USER_ID"}, "")
        assert Settings.from_environ({**TOKENS, **empty}) == Settings.from_environ(TOKENS)


LEFTOVERS: dict[str, Callable[[str], str]] = {
    "a line break": lambda value: f"{value}\n",
    "a line break of Windows": lambda value: f"{value}\r\n",
    "a carriage return": lambda value: f"{value}\r",
    "a line break before": lambda value: f"\n{value}",
    "a blank": lambda value: f"{value} ",
    "a blank before": lambda value: f" {value}",
    "a tab": lambda value: f"{value}\t",
    "a no-break space": lambda value: f"{value}\xa0",
    "double quotes": lambda value: f'"{value}"',
    "single quotes": lambda value: f"'{value}'",
    "backquotes": lambda value: f"`{value}`",
    "a byte order mark": lambda value: f"\ufeff{value}",
    "only blanks": lambda value: " " * len(value),
}


@pytest.mark.parametrize("leftover", LEFTOVERS.values(), ids=LEFTOVERS)
@pytest.mark.parametrize("name", GOOD)
def test_leftovers_of_a_file_format_are_refused(name: str, leftover: Callable[[str], str]) -> None:
    Settings.from_environ(GOOD)
    (mistake,) = mistakes({**GOOD, name: leftover(GOOD[name])})
    assert mistake.startswith(
        (f"{name} begins or ends with a blank", f"{name} begins and ends with a quotation")
    )


def test_marks_within_a_value_are_part_of_it() -> None:
    secret = "it's \"all\" one `secret`, with blanks and 'quotes"
    assert Settings.from_environ({**TOKENS, "MEDMITRA_JWT_SECRET": secret}).jwt_secret == secret
    dsn = "host=db.example password='hunter 2'"
    assert Settings.from_environ({"DATABASE_URL": dsn}).database_url == dsn


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which files have all secrets, as editors write them."""
    for name in SECRETS:
        (tmp_path / name).write_text(f"{GOOD[name]}\n")
    others = {name: value for name, value in GOOD.items() if name not in SECRETS}
    return {**others, **{f"{name}_FILE": str(tmp_path / name) for name in SECRETS}}


class TestFiles:
    def test_every_secret_can_be_in_a_file(self, files: dict[str, str]) -> None:
        assert Settings.from_environ(files) == Settings.from_environ(GOOD)

    def test_without_a_line_break(self, files: dict[str, str]) -> None:
        for name in SECRETS:
            Path(files[f"{name}_FILE"]).write_text(GOOD[name])
        assert Settings.from_environ(files) == Settings.from_environ(GOOD)

    @pytest.mark.parametrize("name", SECRETS)
    def test_a_setting_and_its_file_contradict_each_other(self, files: dict[str, str], name: str) -> None:
        expected = f"{name}_FILE cannot be combined with {name}: set only one of them"
        assert mistakes({**files, name: GOOD[name]}) == [expected]

    @pytest.mark.parametrize("name", SECRETS)
    @pytest.mark.parametrize(
        ("content", "mistake"),
        [
            (b"", "names an empty file"),
            (b"\n", "names an empty file"),
            (b"x" * 65_537, "names a file of more than 64 KiB"),
            (b"\xff" * 40, "names a file that is not UTF-8"),
            (b"\xff\xfex\0y\0", "names a file that is not UTF-8"),
            (b"x" * 40 + b"\0hunter2", "names a file that is not text"),
        ],
        ids=["empty", "a line break", "long", "not UTF-8", "UTF-16", "NUL"],
    )
    def test_a_file_that_has_no_value(
        self, files: dict[str, str], name: str, content: bytes, mistake: str
    ) -> None:
        Path(files[f"{name}_FILE"]).write_bytes(content)
        assert mistakes(files) == [f"{name}_FILE {mistake}"]

    @pytest.mark.parametrize("name", SECRETS)
    @pytest.mark.parametrize("leftover", LEFTOVERS.values(), ids=LEFTOVERS)
    def test_leftovers_in_a_file_are_refused(
        self, files: dict[str, str], name: str, leftover: Callable[[str], str]
    ) -> None:
        path = Path(files[f"{name}_FILE"])
        path.write_text(leftover(path.read_text()), newline="")
        (mistake,) = mistakes(files)
        assert mistake.startswith(f"{name} (in the file of {name}_FILE) begins ")

    @pytest.mark.parametrize("path", ["/nowhere/secret", "/", "secret.txt\n", "a\0b", "x" * 5_000])
    def test_a_file_that_cannot_be_read(self, files: dict[str, str], path: str) -> None:
        (mistake,) = mistakes({**files, "MEDMITRA_JWT_SECRET_FILE": path})
        assert mistake.startswith("MEDMITRA_JWT_SECRET_FILE names a file that cannot be read: ")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_a_file_of_somebody_else(self, files: dict[str, str]) -> None:
        Path(files["DATABASE_URL_FILE"]).chmod(0)
        assert mistakes(files) == ["DATABASE_URL_FILE names a file that cannot be read: Permission denied"]

    def test_files_that_never_end(self, files: dict[str, str]) -> None:
        assert mistakes({**files, "DATABASE_URL_FILE": "/dev/zero"}) == [
            "DATABASE_URL_FILE names a file of more than 64 KiB"
        ]

    def test_rules_hold_for_a_file_too(self, files: dict[str, str]) -> None:
        Path(files["MEDMITRA_JWT_SECRET_FILE"]).write_text("short")
        assert mistakes(files) == [
            "MEDMITRA_JWT_SECRET (in the file of MEDMITRA_JWT_SECRET_FILE) must be at least 32 bytes long"
        ]

    def test_only_secrets_can_be_in_files(self, files: dict[str, str], tmp_path: Path) -> None:
        environ = {**files, "MEDMITRA_JWKS_URL_FILE": str(tmp_path / "none")}
        assert Settings.from_environ(environ) == Settings.from_environ(GOOD)
        assert unknown_variables(environ) == [
            "MEDMITRA_JWKS_URL_FILE is not a setting; the most similar is MEDMITRA_JWKS_URL"
        ]

    def test_every_command_reads_them(self, files: dict[str, str], server_dsn: str) -> None:
        Path(files["DATABASE_URL_FILE"]).write_text(f"{server_dsn}\n")
        ended = run("check", **files)
        assert "✓ medmitra.cases is a table" in ended.stdout
        ended = run("token", "--user", "b8acad4b-4944-4d66-b405-de70886e7248", **files)
        assert (ended.returncode, ended.stderr) == (0, "")
        del files["DATABASE_URL_FILE"]
        with serve(server_dsn, **files) as server:
            assert server.end() == 0

    def test_a_command_with_a_database_of_its_own_leaves_the_file_alone(
        self, files: dict[str, str], tmp_path: Path
    ) -> None:
        environ = {**files, "DATABASE_URL_FILE": str(tmp_path / "none"), "DATABASE_URL": "also set"}
        ended = run_program(
            [COMMAND, "harness"], {**environ, "MEDMITRA_TEST_DATABASE_URL": "not one"}, input=""
        )
        assert ended.stderr.startswith("Error: MEDMITRA_TEST_DATABASE_URL is neither a libpq URI")


class TestUnknown:
    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("MEDMITRA_JWT_SECRT", "MEDMITRA_JWT_SECRET"),
            ("MEDMITRA_JWT_SECRET_FILES", "MEDMITRA_JWT_SECRET_FILE"),
            ("MEDMITRA_JWKS_URI", "MEDMITRA_JWKS_URL"),
            ("MEDMITRA_THREAD", "MEDMITRA_THREADS"),
            ("MEDMITRA_DATABASE_URL", "DATABASE_URL"),
            ("MEDMITRA_DATABASE_URL_FILE", "DATABASE_URL_FILE"),
            ("medmitra_jwt_secret", "MEDMITRA_JWT_SECRET"),
            ("MEDMITRA_ADMIN_PORT", "MEDMITRA_ADMIN_LISTEN"),
        ],
    )
    def test_the_nearest_name(self, name: str, nearest: str) -> None:
        expected = f"{name} is not a setting; the most similar is {nearest}"
        assert unknown_variables({**GOOD, name: "8001", "PATH": "/bin"}) == [expected]

    def test_known_names(self) -> None:
        kubernetes = {
            "MEDMITRA_CASES_SERVICE_HOST": "10.0.0.1",
            "MEDMITRA_CASES_SERVICE_PORT": "80",
            "MEDMITRA_CASES_SERVICE_PORT_HTTP": "80",
            "MEDMITRA_CASES_PORT": "tcp://10.0.0.1:80",
            "MEDMITRA_CASES_PORT_80_TCP": "tcp://10.0.0.1:80",
            "MEDMITRA_CASES_PORT_80_TCP_PROTO": "tcp",
            "MEDMITRA_CASES_PORT_80_TCP_ADDR": "10.0.0.1",
        }
        settings = {str(field.data_key): "1" for field in SettingsSchema().fields.values()}
        files = {f"{name}_FILE": "x" for name in SECRETS}
        assert unknown_variables({**kubernetes, **settings, **files, "MEDMITRA_TEST_DATABASE_URL": "x"}) == []

    def test_serve_warns_without_the_value(self) -> None:
        with serve("host=127.0.0.1", MEDMITRA_JWT_SECRT="hunter2") as server:
            assert server.end() == 0
        warning = "MEDMITRA_JWT_SECRT is not a setting; the most similar is MEDMITRA_JWT_SECRET"
        assert server.printed.count(warning) == 1
        assert "WARNING medmitra_cases" in next(
            line for line in server.printed.splitlines() if warning in line
        )
        assert "hunter2" not in server.printed

    def test_so_does_another_wsgi_server(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", URL)
        monkeypatch.setenv("MEDMITRA_TRUST_USERID", "1")
        create_app()
        assert (
            "MEDMITRA_TRUST_USERID is not a setting; the most similar is MEDMITRA_TRUST_USER_ID"
            in caplog.text
        )

    def test_the_harness_refuses(self) -> None:
        ended = run("harness", MEDMITRA_JWT_SECRT=SECRET, MEDMITRA_THREAD="1")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert sorted(ended.stderr.removeprefix("Error: ").rstrip("\n").split("; ")) == sorted(
            (
                "MEDMITRA_JWT_SECRT is not a setting",
                "the most similar is MEDMITRA_JWT_SECRET",
                "MEDMITRA_THREAD is not a setting",
                "the most similar is MEDMITRA_THREADS",
            )
        )
