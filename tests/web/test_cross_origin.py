"""A page of another origin in a real browser, with the TypeScript of docs/clients.md."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect

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
<button>Ask</button> <button>Ask for news</button> <button>Watch</button> <button>Stop</button>
<script type="module">
  import { fetchCases } from "./cases.js";
  import { watchCases } from "./watch.js";

  const { user, token = null } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const [list, alert, status] = document.querySelectorAll("ul, p");
  const [ask, askForNews, watch, stop] = document.querySelectorAll("button");
  const watching = new AbortController();
  let known, answers = 0;

  function show(cases) {
    alert.textContent = "";
    list.replaceChildren(...cases.map(({ patient_name, status }) =>
      Object.assign(document.createElement("li"), { textContent: `${patient_name}: ${status}` })));
  }
  function complain(error) {
    alert.textContent = error.message;
  }
  async function refresh(options) {
    try {
      const news = await fetchCases(user, token, options);
      if (news) show(news.cases);
      known = news?.etag ?? known;
      status.textContent = `${++answers}: ${news ? "cases" : "nothing new"}`;
    } catch (error) {
      complain(error);
    }
  }
  ask.onclick = () => refresh();
  askForNews.onclick = () => refresh({ etag: known });
  watch.onclick = async () => {
    await watchCases(user, async () => token, show, complain, watching.signal);
    status.textContent = "stopped";
  };
  stop.onclick = () => watching.abort();
</script>
"""


# Pauses last until the test ends them.
PAUSES = """
window.pauses = [];
window.setTimeout = (resume, milliseconds) => pauses.push({ resume, milliseconds });
"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves the page and its scripts."""

    def log_message(self, *_: Any) -> None:
        """Nothing that pytest should print."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The folder and the port of the page's server, which is none of the service."""
    folder = tmp_path_factory.mktemp("site")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield folder, server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def service(server_dsn: str, site: tuple[Path, int]) -> Iterator[Harness]:
    """A service with tokens that the page's origin may read; and the page, as it finds that."""
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


class Wire:
    """What goes to the service and comes back, preflights and 304s included: a page sees neither."""

    def __init__(self, page: Page, service: str) -> None:
        self._page = page
        self._service = service
        self._methods: dict[str, str] = {}
        self._answers: list[tuple[str, int]] = []
        network = page.context.new_cdp_session(page)
        network.on("Network.requestWillBeSent", self._note_request)
        network.on("Network.responseReceivedExtraInfo", self._note_answer)
        network.send("Network.enable")

    def expect(self, *expected: str) -> None:
        """Wait for so many answers since this was last called, and compare their methods and statuses."""
        wait_until(lambda: self._page.evaluate("true") and len(self._seen()) >= len(expected))
        assert self._seen() == list(expected)
        self._answers.clear()

    def _seen(self) -> list[str]:
        return [f"{self._methods[of]} {status}" for of, status in self._answers if of in self._methods]

    def _note_request(self, event: dict[str, Any]) -> None:
        if event["request"]["url"].startswith(self._service):
            self._methods[event["requestId"]] = event["request"]["method"]

    def _note_answer(self, event: dict[str, Any]) -> None:
        self._answers.append((event["requestId"], event["statusCode"]))


@pytest.fixture
def visited(browser: Browser, service: Harness) -> Iterator[Visit]:
    """An empty page, while the service has no cases."""
    service.clear()
    with visit(browser) as visited:
        yield visited


@pytest.fixture
def address(site: tuple[Path, int]) -> Callable[..., str]:
    """Where the page is, for the doctor who has signed in."""
    return lambda host="127.0.0.1", **signed_in: f"http://{host}:{site[1]}/#{urlencode(signed_in)}"


Address = Callable[..., str]


@pytest.mark.parametrize(
    ("button", "unchanged", "not_modified"),
    [
        ("Ask", "cases", ["GET 304"]),
        ("Ask for news", "nothing new", ["OPTIONS 200", "GET 304"]),
    ],
    ids=["the browser sends the tag", "the page sends the tag"],
)
def test_a_page_shows_the_cases_and_then_what_is_new(
    visited: Visit, service: Harness, address: Address, button: str, unchanged: str, not_modified: list[str]
) -> None:
    page, shown = visited.page, visited.page.get_by_role("listitem")
    ask = page.get_by_role("button", name=button, exact=True)
    ada = service.add_case(user_id=DOCTOR, patient_name="Ada")
    service.add_case(user_id=DOCTOR, patient_name="Zoë", status="completed")
    service.add_case(user_id=ANOTHER_DOCTOR)
    page.goto(address(user=DOCTOR, token=service.token(DOCTOR)))
    wire = Wire(page, service.base_url)

    ask.click()
    expect(shown).to_have_text(["Ada: pending", "Zoë: completed"])
    wire.expect("OPTIONS 200", "GET 200")

    ask.click()
    expect(page.get_by_role("status")).to_have_text(f"2: {unchanged}")
    expect(shown).to_have_text(["Ada: pending", "Zoë: completed"])
    wire.expect(*not_modified)

    service.update_case(ada["case_id"], status="completed")
    ask.click()
    expect(shown).to_have_text(["Ada: completed", "Zoë: completed"])
    wire.expect(*not_modified[:-1], "GET 200")
    assert visited.complaints == []


def test_a_page_that_is_loaded_anew_finds_what_the_browser_has(
    visited: Visit, service: Harness, address: Address
) -> None:
    page, ask = visited.page, visited.page.get_by_role("button", name="Ask", exact=True)
    service.add_case(user_id=DOCTOR, patient_name="Ada")
    page.goto(address(user=DOCTOR, token=service.token(DOCTOR)))
    wire = Wire(page, service.base_url)
    ask.click()
    wire.expect("OPTIONS 200", "GET 200")
    page.reload()
    ask.click()
    expect(page.get_by_role("listitem")).to_have_text(["Ada: pending"])
    wire.expect("GET 304")


@pytest.mark.parametrize(
    ("user", "minutes", "detail"),
    [
        (DOCTOR, None, "a token is needed (Authorization: Bearer <token>)"),
        (DOCTOR, -1, "the token has expired (exp)"),
        (ANOTHER_DOCTOR, 1, "user_id is not the doctor that the token was issued to"),
        ("Ada", 1, re.compile("user_id must be a UUID")),
    ],
    ids=["401", "401, expired", "403", "400"],
)
def test_a_page_can_say_what_is_wrong(
    visited: Visit,
    service: Harness,
    address: Address,
    user: str,
    minutes: int | None,
    detail: str | re.Pattern[str],
) -> None:
    page = visited.page
    token = {} if minutes is None else {"token": service.token(DOCTOR, minutes=minutes)}
    page.goto(address(user=user, **token))
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text(detail)
    assert [complaint.partition(":")[0] for complaint in visited.complaints] == ["Failed to load resource"]


def end_pause(page: Page) -> float:
    """Let a page that watches go on; returns how many seconds it would have waited."""
    page.wait_for_function("pauses.length")
    milliseconds: float = page.evaluate("pauses[0].milliseconds")
    page.evaluate("pauses.shift().resume()")
    return milliseconds / 1000


def test_a_page_that_watches_gets_over_a_failure(visited: Visit, service: Harness, address: Address) -> None:
    page, shown, alert = visited.page, visited.page.get_by_role("listitem"), visited.page.get_by_role("alert")
    page.add_init_script(PAUSES)
    ada = service.add_case(user_id=DOCTOR, patient_name="Ada")
    page.goto(address(user=DOCTOR, token=service.token(DOCTOR)))
    wire = Wire(page, service.base_url)
    page.get_by_role("button", name="Watch").click()
    expect(shown).to_have_text(["Ada: pending"])
    wire.expect("OPTIONS 200", "GET 200")
    assert 3.75 <= end_pause(page) <= 6.25
    wire.expect("GET 304")

    with without_table(service.database_url):
        assert 3.75 <= end_pause(page) <= 6.25
        wire.expect("GET 500")
        expect(alert).to_have_text(
            re.compile(r"^Internal server error: unexpected database error \(request id \w+\)$")
        )
        assert 7.5 <= end_pause(page) <= 12.5
        wire.expect("GET 500")
        expect(shown).to_have_text(["Ada: pending"])

    assert 15 <= end_pause(page) <= 25
    expect(alert).to_be_empty()
    wire.expect("GET 200")  # for a 500 Chromium gives up what it had kept

    service.update_case(ada["case_id"], status="completed")
    assert 3.75 <= end_pause(page) <= 6.25
    expect(shown).to_have_text(["Ada: completed"])
    wire.expect("GET 200")

    page.get_by_role("button", name="Stop").click()
    end_pause(page)
    expect(page.get_by_role("status")).to_have_text("stopped")
    assert {complaint.partition(":")[0] for complaint in visited.complaints} == {"Failed to load resource"}


def test_a_page_does_not_go_on_asking_for_what_it_must_not_see(
    visited: Visit, service: Harness, address: Address
) -> None:
    page = visited.page
    page.goto(address(user=ANOTHER_DOCTOR, token=service.token(DOCTOR)))
    page.get_by_role("button", name="Watch").click()
    expect(page.get_by_role("status")).to_have_text("stopped")
    expect(page.get_by_role("alert")).to_have_text("user_id is not the doctor that the token was issued to")


def test_a_page_of_another_origin_than_those_allowed_reads_nothing(
    visited: Visit, service: Harness, address: Address
) -> None:
    page = visited.page
    service.add_case(user_id=DOCTOR, patient_name="Ada")
    page.goto(address("localhost", user=DOCTOR, token=service.token(DOCTOR)))
    wire = Wire(page, service.base_url)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("Failed to fetch")
    expect(page.get_by_role("listitem")).to_have_count(0)
    wire.expect("OPTIONS 200")
    assert "blocked by CORS policy" in visited.complaints[0]
