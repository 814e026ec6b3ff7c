"""A page of another origin in a real browser, which runs the TypeScript of docs/clients.md."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from medmitra_cases.testing import Harness, harness
from tests.support.chromium import Visit, visit
from tests.support.factories import DOCTOR, without_table
from tests.support.processes import wait_until
from tests.support.snippets import run_sessions, write_files

ANOTHER_DOCTOR = DOCTOR[:-1] + "9"

PAGE = """
<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Cases</title><link rel="icon" href="data:,">
<ul></ul>
<p role="alert"></p>
<p role="status"></p>
<button>Load</button> <button>Load changes</button> <button>Watch</button> <button>Stop</button>
<script type="module">
  import { fetchCases } from "./cases.js";
  import { watchCases } from "./watch.js";

  const { user, token = null } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const [list, alert, status] = document.querySelectorAll("ul, p");
  const [load, loadChanges, watch, stop] = document.querySelectorAll("button");
  const watching = new AbortController();
  let etag, responses = 0;

  function show(cases) {
    alert.textContent = "";
    list.replaceChildren(...cases.map(({ patient_name, status }) =>
      Object.assign(document.createElement("li"), { textContent: `${patient_name}: ${status}` })));
  }
  function showError(error) {
    alert.textContent = error.message;
  }
  async function refresh(options) {
    try {
      const response = await fetchCases(user, token, options);
      if (response) show(response.cases);
      etag = response?.etag ?? etag;
      status.textContent = `${++responses}: ${response ? "cases" : "unchanged"}`;
    } catch (error) {
      showError(error);
    }
  }
  load.onclick = () => refresh();
  loadChanges.onclick = () => refresh({ etag });
  watch.onclick = async () => {
    await watchCases(user, async () => token, show, showError, watching.signal);
    status.textContent = "stopped";
  };
  stop.onclick = () => watching.abort();
</script>
"""


# The page's timers run until the test ends them.
FAKE_TIMERS = """
window.pauses = [];
window.setTimeout = (resume, milliseconds) => pauses.push({ resume, milliseconds });
"""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves the page and its scripts."""

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The folder and the port of the page's web server, which is separate from the service."""
    folder = tmp_path_factory.mktemp("site")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield folder, server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def service(server_dsn: str, site: tuple[Path, int]) -> Iterator[Harness]:
    """A service that requires tokens and allows the origin of the page, and the page's files."""
    folder, port = site
    settings = {
        "MEDMITRA_TEST_DATABASE_URL": server_dsn,
        "MEDMITRA_JWT_SECRET": "test-secret-of-thirty-two-bytes-or-more",
        "MEDMITRA_CORS_ORIGINS": f"http://127.0.0.1:{port}",
    }
    with harness(settings) as started:
        write_files(folder, started.base_url)
        run_sessions("docs/clients.md", "TypeScript, in a browser", folder, started.base_url)
        (folder / "index.html").write_text(PAGE)
        yield started


class NetworkLog:
    """The requests to the service and their statuses, with preflights and 304s, which a page cannot see."""

    def __init__(self, page: Page, service: str) -> None:
        self._page = page
        self._service = service
        self._methods: dict[str, str] = {}
        self._responses: list[tuple[str, int]] = []
        network = page.context.new_cdp_session(page)
        network.on("Network.requestWillBeSent", self._add_request)
        network.on("Network.responseReceivedExtraInfo", self._add_response)
        network.send("Network.enable")

    def expect(self, *expected: str) -> None:
        """Wait for this many responses since the last call, and compare their methods and statuses."""
        wait_until(lambda: self._page.evaluate("true") and len(self._exchanges()) >= len(expected))
        assert self._exchanges() == list(expected)
        self._responses.clear()

    def _exchanges(self) -> list[str]:
        return [f"{self._methods[id_]} {status}" for id_, status in self._responses if id_ in self._methods]

    def _add_request(self, event: dict[str, Any]) -> None:
        if event["request"]["url"].startswith(self._service):
            self._methods[event["requestId"]] = event["request"]["method"]

    def _add_response(self, event: dict[str, Any]) -> None:
        self._responses.append((event["requestId"], event["statusCode"]))


@pytest.fixture
def tab(browser: Browser, service: Harness) -> Iterator[Visit]:
    """An empty tab of the browser. The service has no cases."""
    service.clear()
    with visit(browser) as tab:
        yield tab


@pytest.fixture
def page_url(site: tuple[Path, int]) -> Callable[..., str]:
    """A function that makes the URL of the page for a doctor who has signed in."""
    return lambda host="127.0.0.1", **signed_in: f"http://{host}:{site[1]}/#{urlencode(signed_in)}"


PageUrl = Callable[..., str]


@pytest.mark.parametrize(
    ("button", "status_text", "not_modified"),
    [
        ("Load", "cases", ["GET 304"]),
        ("Load changes", "unchanged", ["OPTIONS 200", "GET 304"]),
    ],
    ids=["the browser sends the ETag", "the page sends the ETag"],
)
def test_a_page_shows_the_cases_and_then_their_changes(
    tab: Visit, service: Harness, page_url: PageUrl, button: str, status_text: str, not_modified: list[str]
) -> None:
    page, items = tab.page, tab.page.get_by_role("listitem")
    load = page.get_by_role("button", name=button, exact=True)
    ada = service.add_case(user_id=DOCTOR, patient_name="Ada")
    service.add_case(user_id=DOCTOR, patient_name="Zoë", status="completed")
    service.add_case(user_id=ANOTHER_DOCTOR)
    page.goto(page_url(user=DOCTOR, token=service.token(DOCTOR)))
    network = NetworkLog(page, service.base_url)

    load.click()
    expect(items).to_have_text(["Ada: pending", "Zoë: completed"])
    network.expect("OPTIONS 200", "GET 200")

    load.click()
    expect(page.get_by_role("status")).to_have_text(f"2: {status_text}")
    expect(items).to_have_text(["Ada: pending", "Zoë: completed"])
    network.expect(*not_modified)

    service.update_case(ada["case_id"], status="completed")
    load.click()
    expect(items).to_have_text(["Ada: completed", "Zoë: completed"])
    network.expect(*not_modified[:-1], "GET 200")
    assert tab.complaints == []


def test_a_reloaded_page_uses_the_cache_of_the_browser(
    tab: Visit, service: Harness, page_url: PageUrl
) -> None:
    page, load = tab.page, tab.page.get_by_role("button", name="Load", exact=True)
    service.add_case(user_id=DOCTOR, patient_name="Ada")
    page.goto(page_url(user=DOCTOR, token=service.token(DOCTOR)))
    network = NetworkLog(page, service.base_url)
    load.click()
    network.expect("OPTIONS 200", "GET 200")
    page.reload()
    load.click()
    expect(page.get_by_role("listitem")).to_have_text(["Ada: pending"])
    network.expect("GET 304")


@pytest.mark.parametrize(
    ("user", "minutes", "detail"),
    [
        (DOCTOR, None, "a token is needed (Authorization: Bearer <token>)"),
        (DOCTOR, -1, "the token has expired (exp)"),
        (ANOTHER_DOCTOR, 1, "user_id is not the doctor that the token was issued to"),
        ("Ada", 1, re.compile("user_id must be a UUID")),
    ],
    ids=["401", "401 expired", "403", "400"],
)
def test_a_page_shows_the_detail_of_an_error(
    tab: Visit,
    service: Harness,
    page_url: PageUrl,
    user: str,
    minutes: int | None,
    detail: str | re.Pattern[str],
) -> None:
    page = tab.page
    token = {} if minutes is None else {"token": service.token(DOCTOR, minutes=minutes)}
    page.goto(page_url(user=user, **token))
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text(detail)
    assert [complaint.partition(":")[0] for complaint in tab.complaints] == ["Failed to load resource"]


def end_pause(page: Page) -> float:
    """End the pause of a page that watches; returns how long it would have lasted, in seconds."""
    page.wait_for_function("pauses.length")
    milliseconds: float = page.evaluate("pauses[0].milliseconds")
    page.evaluate("pauses.shift().resume()")
    return milliseconds / 1000


def test_a_page_that_watches_recovers_from_a_failure(tab: Visit, service: Harness, page_url: PageUrl) -> None:
    page, items, alert = tab.page, tab.page.get_by_role("listitem"), tab.page.get_by_role("alert")
    page.add_init_script(FAKE_TIMERS)
    ada = service.add_case(user_id=DOCTOR, patient_name="Ada")
    page.goto(page_url(user=DOCTOR, token=service.token(DOCTOR)))
    network = NetworkLog(page, service.base_url)
    page.get_by_role("button", name="Watch").click()
    expect(items).to_have_text(["Ada: pending"])
    network.expect("OPTIONS 200", "GET 200")
    assert 3.75 <= end_pause(page) <= 6.25
    network.expect("GET 304")

    with without_table(service.database_url):
        assert 3.75 <= end_pause(page) <= 6.25
        network.expect("GET 500")
        expect(alert).to_have_text(
            re.compile(r"^Internal server error: unexpected database error \(request id \w+\)$")
        )
        assert 7.5 <= end_pause(page) <= 12.5
        network.expect("GET 500")
        expect(items).to_have_text(["Ada: pending"])

    assert 15 <= end_pause(page) <= 25
    expect(alert).to_be_empty()
    network.expect("GET 200")  # Chromium removes the cached response after a 500

    service.update_case(ada["case_id"], status="completed")
    assert 3.75 <= end_pause(page) <= 6.25
    expect(items).to_have_text(["Ada: completed"])
    network.expect("GET 200")

    page.get_by_role("button", name="Stop").click()
    end_pause(page)
    expect(page.get_by_role("status")).to_have_text("stopped")
    assert {complaint.partition(":")[0] for complaint in tab.complaints} == {"Failed to load resource"}


def drop_etag(route: Route) -> None:
    """Respond as a proxy does that removes the tag, such as one that rewrites bodies."""
    response = route.fetch()
    headers = {name: value for name, value in response.headers.items() if name != "etag"}
    route.fulfill(response=response, headers=headers)


def test_a_page_that_watches_shows_changes_if_a_proxy_drops_the_tag(
    tab: Visit, service: Harness, page_url: PageUrl
) -> None:
    page, items = tab.page, tab.page.get_by_role("listitem")
    page.add_init_script(FAKE_TIMERS)
    page.route(f"{service.base_url}/**", drop_etag)
    ada = service.add_case(user_id=DOCTOR, patient_name="Ada")
    page.goto(page_url(user=DOCTOR, token=service.token(DOCTOR)))
    page.get_by_role("button", name="Watch").click()
    expect(items).to_have_text(["Ada: pending"])
    service.update_case(ada["case_id"], status="completed")
    end_pause(page)
    expect(items).to_have_text(["Ada: completed"])
    assert tab.complaints == []


# Headless browsers hide no tab.
SET_HIDDEN = """
(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}
"""


def test_a_hidden_tab_sends_no_request_until_it_is_visible(
    tab: Visit, service: Harness, page_url: PageUrl
) -> None:
    page, items = tab.page, tab.page.get_by_role("listitem")
    page.add_init_script(FAKE_TIMERS)
    ada = service.add_case(user_id=DOCTOR, patient_name="Ada")
    page.goto(page_url(user=DOCTOR, token=service.token(DOCTOR)))
    page.get_by_role("button", name="Watch").click()
    expect(items).to_have_text(["Ada: pending"])
    page.evaluate(SET_HIDDEN, arg=True)
    end_pause(page)
    service.update_case(ada["case_id"], status="completed")
    sent = len(tab.requests)
    page.evaluate(SET_HIDDEN, arg=True)  # an event that changes nothing
    assert (len(tab.requests), page.evaluate("pauses.length")) == (sent, 0)
    page.evaluate(SET_HIDDEN, arg=False)
    expect(items).to_have_text(["Ada: completed"])

    page.evaluate(SET_HIDDEN, arg=True)
    end_pause(page)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("stopped")


def test_a_page_counts_cases_without_fetching_them(tab: Visit, service: Harness, page_url: PageUrl) -> None:
    page, token = tab.page, service.token(DOCTOR)
    for status in ("pending", "analyzing", "completed"):
        service.add_case(user_id=DOCTOR, status=status)
    page.goto(page_url())
    count = """
        async ([user, token, query]) => {
          const { countCases } = await import("./cases.js");
          return countCases(user, token, { query }).catch((error) => `${error.status}: ${error.message}`);
        }
    """
    repeated = [["status", "pending"], ["status", "analyzing"]]
    for query, counted in ((None, 3), (repeated, 2), ({"status": "completed", "limit": "5"}, 1)):
        values = [DOCTOR, token, query] if query is not None else [DOCTOR, token]
        assert page.evaluate(count, values) == counted
    assert page.evaluate(count, [DOCTOR, "made up"]) == "401: HTTP 401"
    methods = {request.method for request in tab.requests if request.url.startswith(service.base_url)}
    assert methods == {"HEAD"}


def test_a_page_that_watches_stops_after_a_403(tab: Visit, service: Harness, page_url: PageUrl) -> None:
    page = tab.page
    page.goto(page_url(user=ANOTHER_DOCTOR, token=service.token(DOCTOR)))
    page.get_by_role("button", name="Watch").click()
    expect(page.get_by_role("status")).to_have_text("stopped")
    expect(page.get_by_role("alert")).to_have_text("user_id is not the doctor that the token was issued to")


def test_a_page_of_an_origin_that_is_not_allowed_reads_nothing(
    tab: Visit, service: Harness, page_url: PageUrl
) -> None:
    page = tab.page
    service.add_case(user_id=DOCTOR, patient_name="Ada")
    page.goto(page_url("localhost", user=DOCTOR, token=service.token(DOCTOR)))
    network = NetworkLog(page, service.base_url)
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("Failed to fetch")
    expect(page.get_by_role("listitem")).to_have_count(0)
    network.expect("OPTIONS 200")
    assert "blocked by CORS policy" in tab.complaints[0]
