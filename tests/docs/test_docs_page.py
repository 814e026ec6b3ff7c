"""The page ``/docs`` in a browser."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from medmitra_cases import contract
from medmitra_cases.auth.tokens import mint_token
from tests.support import factories
from tests.support.chromium import Visit, visit
from tests.support.factories import CasesDatabase, case
from tests.support.processes import serve
from tests.support.tokens import SECRET

PHONE = {"viewport": {"width": 375, "height": 667}, "is_mobile": True, "has_touch": True}
NAMES = [case["patient_name"] for case in contract.EXAMPLE["cases"]]
TOKENS = {"MEDMITRA_JWT_SECRET": SECRET}

pytestmark = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)


@pytest.fixture
def published_cases(database: CasesDatabase) -> CasesDatabase:
    """Return the database with the cases of the published example."""
    database.add(*contract.EXAMPLE["cases"])
    return database


@contextmanager
def serving(database: CasesDatabase, **variables: str) -> Iterator[str]:
    """Run the service, and yield its address."""
    with serve(database.service_dsn, **variables) as server:
        yield f"http://{server.host}:{server.port}"


def execute(page: Page) -> None:
    page.get_by_role("button", name="Execute").click()


def assert_shown(page: Page, *texts: str) -> None:
    """Assert that the response is visible and contains these texts."""
    response = page.locator(".live-responses-table")
    for text in texts:
        expect(response).to_contain_text(text)
    expect(response.locator("tbody .response-col_status")).to_be_in_viewport()


def assert_same_origin(visited: Visit, address: str) -> None:
    """Assert that all requests went to the service, and that the console has no errors."""
    assert visited.complaints == []
    assert {request.url.startswith(f"{address}/") for request in visited.requests} == {True}


def upper_edge(page: Page, selector: str) -> float:
    found: float = page.evaluate("s => document.querySelector(s).getBoundingClientRect().top", selector)
    return found


def lower_edge(page: Page, selector: str) -> float:
    found: float = page.evaluate("s => document.querySelector(s).getBoundingClientRect().bottom", selector)
    return found


def width(page: Page) -> int:
    found: int = page.evaluate("document.documentElement.scrollWidth")
    return found


def test_the_page_shows_endpoint_and_response(browser: Browser, published_cases: CasesDatabase) -> None:
    with serving(published_cases) as address, visit(browser) as visited:
        page = visited.page
        page.goto(f"{address}/")
        expect(page).to_have_title("MedMitra cases: the API")
        for element in (
            page.get_by_role("heading", name="MedMitra cases"),
            page.locator(".opblock-get").get_by_text("/cases/all_cases"),
            page.get_by_placeholder("user_id"),
            page.get_by_role("button", name="Execute"),
        ):
            expect(element).to_be_in_viewport()
        expect(page.get_by_placeholder("user_id")).to_have_value(contract.USER_ID)
        expect(page.get_by_role("button", name="Authorize")).to_have_count(0)
        expect(page.get_by_role("checkbox")).to_have_count(0)

        execute(page)
        assert_shown(page, "200", *NAMES)
        assert visited.requests[-1].url == f"{address}/cases/all_cases?user_id={contract.USER_ID}"

        for value in ("analyzing", "none"):  # the page repeats the parameter
            status = page.locator('tr[data-param-name="status"]')
            status.get_by_role("button", name="Add string item").click()
            status.get_by_role("textbox").last.fill(value)
        page.get_by_placeholder("limit").fill("1")
        execute(page)
        assert_shown(page, "x-total-count: 1", NAMES[1])
        assert "&status=analyzing&status=none&" in visited.requests[-1].url
        expect(page.locator(".live-responses-table")).not_to_contain_text(NAMES[0])
        assert_same_origin(visited, address)


def test_the_page_sends_the_entered_token(browser: Browser, published_cases: CasesDatabase) -> None:
    token = mint_token(factories.settings("dbname=postgres", **TOKENS), contract.USER_ID, minutes=5)
    with serving(published_cases, **TOKENS) as address, visit(browser) as visited:
        page = visited.page
        page.goto(f"{address}/docs")
        page.get_by_role("button", name="Authorize").click()
        dialog = page.locator(".modal-ux")
        dialog.get_by_role("textbox").fill(token)
        dialog.get_by_role("button", name="Apply credentials").click()
        dialog.get_by_role("button", name="Close").last.click()
        execute(page)
        assert_shown(page, "200", *NAMES)
        assert visited.requests[-1].headers["authorization"] == f"Bearer {token}"
        assert_same_origin(visited, address)


def test_the_page_focuses_an_invalid_value(browser: Browser, published_cases: CasesDatabase) -> None:
    with serving(published_cases) as address, visit(browser, **PHONE) as visited:
        page = visited.page
        page.goto(f"{address}/docs")
        date = page.get_by_placeholder("start_date")
        date.fill("yesterday")
        page.get_by_placeholder("user_id").scroll_into_view_if_needed()
        execute(page)
        expect(date).to_be_focused()
        expect(date).to_be_in_viewport()
        expect(page.locator(".live-responses-table")).to_have_count(0)
        date.fill("2026-03-04")
        execute(page)
        assert_shown(page, "200", NAMES[0])
        assert_same_origin(visited, address)


def test_the_focused_element_is_not_covered(browser: Browser, published_cases: CasesDatabase) -> None:
    with (
        serving(published_cases) as address,
        visit(browser, viewport={"width": 1280, "height": 800}) as visited,
    ):
        page = visited.page
        page.goto(f"{address}/docs")
        page.get_by_placeholder("user_id").focus()
        for _ in range(10):
            page.keyboard.press("Tab")
            assert lower_edge(page, ":focus") <= upper_edge(page, ".opblock-get .execute-wrapper")


def test_the_page_follows_the_dark_colour_scheme(browser: Browser, published_cases: CasesDatabase) -> None:
    with serving(published_cases) as address, visit(browser, color_scheme="dark") as visited:
        visited.page.goto(f"{address}/docs")
        expect(visited.page.locator("html")).to_have_class("dark-mode")


def test_a_phone_shows_the_response_to_head(browser: Browser, published_cases: CasesDatabase) -> None:
    with serving(published_cases) as address, visit(browser, **PHONE) as visited:
        page = visited.page
        page.goto(f"{address}/docs")
        execute(page)
        assert_shown(page, "200", *NAMES)
        head = page.locator(".opblock-head")
        head.locator(".opblock-summary-control").click()
        head.get_by_role("button", name="Execute").click()
        expect(head.locator(".live-responses-table tbody .response-col_status")).to_be_in_viewport()


def test_the_page_fits_the_width_of_a_phone(browser: Browser, published_cases: CasesDatabase) -> None:
    published_cases.add(case(user_id=contract.USER_ID, case_summary="x" * 500))
    with serving(published_cases) as address, visit(browser, **PHONE) as visited:
        page = visited.page
        page.goto(f"{address}/docs")
        expect(page.get_by_role("button", name="Execute")).to_be_in_viewport()
        assert width(page) == 375
        execute(page)
        assert_shown(page, "200", *NAMES)
        assert width(page) == 375
        assert_same_origin(visited, address)


def test_the_page_works_below_a_path_of_a_proxy(browser: Browser, published_cases: CasesDatabase) -> None:
    with factories.client_on(published_cases.service_dsn) as client:
        app = DispatcherMiddleware(NotFound(), {"/clinic/api": client.application})
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/clinic/api"
            with visit(browser) as visited:
                visited.page.goto(f"{address}/")
                execute(visited.page)
                assert_shown(visited.page, "200", *NAMES)
                assert_same_origin(visited, address)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
