"""The clients of docs/clients.md and docs/testing.md, with a failed database and a killed process."""

import importlib
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests
from psycopg2.extensions import parse_dsn
from requests.adapters import HTTPAdapter

from medmitra_cases.testing import Harness, harness
from tests.support.factories import DOCTOR, without_table
from tests.support.processes import environment, processes_below, wait_until
from tests.support.programs import tool
from tests.support.snippets import PATH, SERVICE, write_files
from tests.support.tokens import SECRET


@pytest.fixture
def cases_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module of the section "Python"."""
    write_files(tmp_path, SERVICE)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("cases_client")


def test_the_python_client_retries_and_reports_the_error_detail(medmitra: Harness, cases_client: Any) -> None:
    medmitra.add_case(user_id=DOCTOR, patient_name="Ada")
    cases = cases_client.Cases(medmitra.base_url, DOCTOR)
    message = r"^500: Internal server error: unexpected database error \(request id \w+\)$"
    with without_table(medmitra.database_url), pytest.raises(cases_client.CasesError, match=message):
        cases.refresh()
    assert cases.refresh()
    assert [case["patient_name"] for case in cases.latest] == ["Ada"]
    log = StringIO()
    wait_until(lambda: log.write(medmitra.log()) and '"outcome":"ok"' in log.getvalue())
    assert log.getvalue().count('"outcome":"internal_server_error"') == 3


class _TooManyRequests(BaseHTTPRequestHandler):
    """Answers every second request with an empty list, and the others with a 429 as nginx does."""

    count = 0

    def do_GET(self) -> None:
        type(self).count += 1
        self.send_response(429 if self.count % 2 else 200)
        self.send_header("Retry-After", "0")
        self.send_header("ETag", '"x"')
        self.end_headers()
        self.wfile.write(b'{"cases":[]}')

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_the_python_client_retries_after_a_429(cases_client: Any) -> None:
    with HTTPServer(("127.0.0.1", 0), _TooManyRequests) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            assert cases_client.Cases(f"http://127.0.0.1:{proxy.server_port}", DOCTOR).refresh()
        finally:
            proxy.shutdown()
            thread.join()
    assert _TooManyRequests.count == 2


class WithoutTags(HTTPAdapter):
    """A proxy that removes the tag of each response."""

    def send(self, *args: Any, **options: Any) -> requests.Response:
        """Send a request."""
        response = super().send(*args, **options)
        response.headers.pop("ETag")
        return response


def test_the_python_client_takes_each_list_without_a_tag_for_changed(
    medmitra: Harness, cases_client: Any
) -> None:
    medmitra.add_case(user_id=DOCTOR, patient_name="Ada")
    cases = cases_client.Cases(medmitra.base_url, DOCTOR)
    cases._session.mount(medmitra.base_url, WithoutTags())
    assert (cases.refresh(), len(cases.latest)) == (True, 1)
    medmitra.add_case(user_id=DOCTOR, patient_name="Zoë")
    assert (cases.refresh(), len(cases.latest)) == (True, 2)


def test_the_python_client_keeps_its_token_if_netrc_names_the_host(
    server_dsn: str, cases_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with harness({"MEDMITRA_TEST_DATABASE_URL": server_dsn, "MEDMITRA_JWT_SECRET": SECRET}) as service:
        service.add_case(user_id=DOCTOR)
        cases = cases_client.Cases(service.base_url, DOCTOR, service.token(DOCTOR))
        assert (cases.refresh(), cases.count(), len(next(cases.pages()))) == (True, 1, 1)
        cases.token = None
        with pytest.raises(cases_client.CasesError, match=r"^401: a token is needed"):
            cases.refresh()
        with pytest.raises(cases_client.CasesError, match=r"^401: UNAUTHORIZED$"):
            cases.count()


def test_the_harness_ends_after_its_node_process_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, SERVICE)
    monkeypatch.setenv("PATH", PATH)
    program = """
        import { startHarness } from "./harness.mjs";
        const { databaseUrl, send } = await startHarness();
        await send("add_case", { user_id: "b8acad4b-4944-4d66-b405-de70886e7248" });
        console.log(databaseUrl);
        setInterval(() => {}, 1_000_000);
    """
    command = (tool("node"), "--input-type=module", "--eval", program)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout is not None
        folder = Path(parse_dsn(node.stdout.readline())["host"]).parent
        assert any("postgres" in command_line for command_line in processes_below(folder))
        node.kill()
    wait_until(lambda: not processes_below(folder) and not folder.exists())
