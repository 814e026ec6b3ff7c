"""docs/clients.md keeps its word: all code on it is run, against the real service."""

import importlib
import json
import re
import subprocess
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from medmitra_cases.testing import Harness, harness
from tests.support.factories import DOCTOR, without_table
from tests.support.paths import PUBLISHED
from tests.support.processes import environment, processes_below, wait_until
from tests.support.programs import tool
from tests.support.snippets import PATH, SERVICE, run_python_session, run_sessions, snippets, write_files

WITHOUT_TOKENS = "curl"  # the section whose reader has none


@pytest.fixture(scope="module")
def with_tokens(server_dsn: str) -> Iterator[Harness]:
    """A service that asks for tokens."""
    secret = {"MEDMITRA_JWT_SECRET": "test-secret-of-thirty-two-bytes-or-more"}
    with harness({"MEDMITRA_TEST_DATABASE_URL": server_dsn, **secret}) as started:
        yield started


def add_published_example(service: Harness) -> None:
    service.clear()
    for published in json.loads(PUBLISHED.read_text())["cases"]:
        service.add_case(**published)


def sections(language: str) -> list[str]:
    return list(dict.fromkeys(snippet.section for snippet in snippets() if snippet.language == language))


@pytest.mark.parametrize("section", sections("console"))
def test_what_is_typed_prints_what_is_shown(
    section: str, medmitra: Harness, with_tokens: Harness, server_dsn: str, tmp_path: Path
) -> None:
    service = medmitra if section == WITHOUT_TOKENS else with_tokens
    add_published_example(service)
    write_files(tmp_path, service.base_url)
    run_sessions(
        section,
        tmp_path,
        service.base_url,
        TOKEN=with_tokens.token(DOCTOR),
        MEDMITRA_TEST_DATABASE_URL=server_dsn,
    )


@pytest.mark.parametrize("section", sections("pycon"))
def test_what_python_is_told_it_answers_as_shown(section: str, with_tokens: Harness, tmp_path: Path) -> None:
    add_published_example(with_tokens)
    write_files(tmp_path, with_tokens.base_url)
    run_python_session(section, tmp_path, with_tokens.base_url, TOKEN=with_tokens.token(DOCTOR))


def test_no_snippet_is_left_out() -> None:
    files = [snippet for snippet in snippets() if snippet.file_name]
    sessions = [snippet for snippet in snippets() if snippet.language in ("console", "pycon")]
    assert [snippet.code for snippet in snippets() if snippet not in [*files, *sessions]] == []
    # A file is run by its name, or imported by another or in a session.
    typed = "".join(command for snippet in sessions for command, _ in snippet.steps)
    for file in files:
        others = "".join(snippet.code for snippet in [*files, *sessions] if snippet is not file)
        stem = file.file_name.partition(".")[0]
        used = re.search(rf'^(from {stem} import |import .* from "\./{stem}\.)', others, re.MULTILINE)
        assert f" {file.file_name}" in typed or used, file.file_name


@pytest.fixture
def cases_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the section "Python"."""
    write_files(tmp_path, SERVICE)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("cases_client")


def test_the_python_client_asks_again_and_says_what_the_service_said(
    medmitra: Harness, cases_client: Any
) -> None:
    medmitra.add_case(user_id=DOCTOR, patient_name="Ada")
    cases = cases_client.Cases(medmitra.base_url, DOCTOR)
    said = r"^500: Internal server error: unexpected database error \(request id \w+\)$"
    with without_table(medmitra.database_url), pytest.raises(cases_client.CasesError, match=said):
        cases.refresh()
    assert cases.refresh()
    assert [case["patient_name"] for case in cases.latest] == ["Ada"]
    log = StringIO()
    wait_until(lambda: log.write(medmitra.log()) and '"outcome":"ok"' in log.getvalue())
    assert log.getvalue().count('"outcome":"internal_server_error"') == 3


def test_a_harness_ends_with_the_node_process_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, SERVICE)
    monkeypatch.setenv("PATH", PATH)
    program = """
        import { startHarness } from "./harness.mjs";
        const { databaseUrl, ask } = await startHarness();
        await ask("add_case", { user_id: "b8acad4b-4944-4d66-b405-de70886e7248" });
        console.log(databaseUrl);
        setInterval(() => {}, 1_000_000);
    """
    command = (tool("node"), "--input-type=module", "--eval", program)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout is not None
        folder = Path(parse_dsn(node.stdout.readline())["host"]).parent
        assert any("postgres" in process for process in processes_below(folder))
        node.kill()
    wait_until(lambda: not processes_below(folder) and not folder.exists())
