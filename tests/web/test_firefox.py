"""A page of another origin in Firefox: it runs the TypeScript of docs/clients.md, and reports what it got."""

import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest

from medmitra_cases.testing import Harness, harness
from tests.support.factories import DOCTOR
from tests.support.processes import TIMEOUT_SECONDS
from tests.support.programs import background, tool
from tests.support.snippets import run_sessions, write_files
from tests.support.tokens import SECRET

# Playwright needs a Firefox of its own. This page needs no driver: it sends its report to its own server.
PAGE = """
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Cases</title><link rel="icon" href="data:,">
<script type="module">
  import { countCases, fetchCases } from "./cases.js";
  import { watchCases } from "./watch.js";

  const [user, token] = [USER, TOKEN];
  const names = (list) => list && list.cases.map(({ patient_name }) => patient_name);
  const message = (error) => error.message;
  const report = {};
  try {
    const first = await fetchCases(user, token);
    report.first = names(first);
    report.cached = names(await fetchCases(user, token));
    report.unchanged = await fetchCases(user, token, { etag: first.etag });
    const query = [["status", "pending"], ["status", "analyzing"]];
    report.selected = names(await fetchCases(user, token, { query }));
    report.count = await countCases(user, token, { query });
    report.error = await fetchCases(user, "made up").catch(message);
    const watching = new AbortController();
    const show = (cases) => {
      report.watched = names({ cases });
      watching.abort();
    };
    window.setTimeout = (resume) => resume();
    await watchCases(user, async () => token, show, (error) => { throw error; }, watching.signal);
  } catch (error) {
    report.failure = String(error);
  }
  await fetch("report", { method: "POST", body: JSON.stringify(report) });
</script>
"""

# Firefox sends no requests of its own: no updates, no telemetry, no check of the network.
PREFERENCES = """
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "127.0.0.1");
user_pref("network.proxy.http_port", 9);
user_pref("network.proxy.ssl", "127.0.0.1");
user_pref("network.proxy.ssl_port", 9);
user_pref("services.settings.server", "http://127.0.0.1:9");
user_pref("toolkit.telemetry.enabled", false);
"""


class Handler(SimpleHTTPRequestHandler):
    """Serves the page and its scripts, and receives its report."""

    def __init__(self, reports: "Queue[dict[str, Any]]", *args: Any, **options: Any) -> None:
        self._reports = reports
        super().__init__(*args, **options)

    def do_POST(self) -> None:
        """Receive the report."""
        self._reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, int, "Queue[dict[str, Any]]"]]:
    """The folder and the port of the page's web server, and the reports that it receives."""
    folder = tmp_path / "site"
    folder.mkdir()
    reports: Queue[dict[str, Any]] = Queue()
    handler = partial(Handler, reports, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield folder, server.server_port, reports
        server.shutdown()
        thread.join()


@pytest.fixture
def service(server_dsn: str, site: tuple[Path, int, Any]) -> Iterator[Harness]:
    """A service that requires tokens and allows the origin of the page."""
    settings = {
        "MEDMITRA_TEST_DATABASE_URL": server_dsn,
        "MEDMITRA_JWT_SECRET": SECRET,
        "MEDMITRA_CORS_ORIGINS": f"http://127.0.0.1:{site[1]}",
    }
    with harness(settings) as started:
        yield started


def test_the_typescript_works_in_firefox(
    service: Harness, site: tuple[Path, int, "Queue[dict[str, Any]]"], tmp_path: Path
) -> None:
    firefox = tool("firefox-esr")
    folder, port, reports = site
    write_files(folder, service.base_url)
    run_sessions("docs/clients.md", "TypeScript, in a browser", folder, service.base_url)
    signed_in = {"USER": json.dumps(DOCTOR), "TOKEN": json.dumps(service.token(DOCTOR))}
    page = PAGE
    for name, value in signed_in.items():
        page = page.replace(name, value, 1)
    (folder / "index.html").write_text(page)
    service.add_case(user_id=DOCTOR, patient_name="Ada")
    service.add_case(user_id=DOCTOR, patient_name="Zoë", status="completed")
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "user.js").write_text(PREFERENCES)
    command = (firefox, "--headless", "--no-remote", "--profile", str(profile), f"http://127.0.0.1:{port}/")
    with background(*command, log=tmp_path / "firefox.log"):
        report = reports.get(timeout=TIMEOUT_SECONDS)
    assert report == {
        "first": ["Ada", "Zoë"],
        "cached": ["Ada", "Zoë"],
        "unchanged": None,
        "selected": ["Ada"],
        "count": 1,
        "error": "the token is malformed",
        "watched": ["Ada", "Zoë"],
    }
