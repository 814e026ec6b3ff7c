"""The page ``/docs`` in a browser."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from marshmallow import fields
from playwright.sync_api import Browser, Locator, Page, Route, expect
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from medmitra_cases import contract
from medmitra_cases.auth.tokens import mint_token
from medmitra_cases.schemas import CASE_QUERY
from tests.support import factories
from tests.support.chromium import Visit, visit
from tests.support.factories import CasesDatabase, case
from tests.support.paths import AXE
from tests.support.processes import serve
from tests.support.tokens import SECRET

WIDTHS = [360, 1280]
COLOUR_SCHEMES = ["light", "dark"]
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
        dialog.get_by_role("button", name="Authorize").click()
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


def run_axe(page: Page) -> dict[str, list[str]]:
    """Return the elements that violate a rule of WCAG 2.1, level A or AA, by the name of axe's rule."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed; make test installs it")
    # Over the DevTools protocol, because the page's own policy allows no script from elsewhere.
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    assert found["passes"]
    return {
        rule["id"]: [f"{node['html']}: {node['failureSummary']}" for node in rule["nodes"]]
        for rule in found["violations"]
    }


@pytest.mark.parametrize("colour_scheme", COLOUR_SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_violation(
    browser: Browser, published_cases: CasesDatabase, width: int, colour_scheme: str
) -> None:
    # High enough for all text: axe skips the contrast of text that is scrolled away or under the bar with the
    # button. Without motion, because axe measures the colours of this moment.
    screen = {
        "viewport": {"width": width, "height": 6000},
        "color_scheme": colour_scheme,
        "reduced_motion": "reduce",
    }
    token = mint_token(factories.settings("dbname=postgres", **TOKENS), contract.USER_ID, minutes=5)
    with serving(published_cases, **TOKENS) as address, visit(browser, **screen) as visited:
        page = visited.page
        page.goto(f"{address}/docs")
        page.get_by_role("button", name="Execute").wait_for()
        assert run_axe(page) == {}

        page.get_by_label("max_age").fill("old")
        statuses = page.get_by_role("group", name="status")
        statuses.get_by_role("button", name="Add string item").click()
        execute(page)
        expect(page.get_by_label("max_age")).to_be_focused()
        assert run_axe(page) == {}
        page.get_by_label("max_age").fill("")
        statuses.get_by_role("button", name="-").click()

        page.get_by_role("button", name="Authorize").click()
        assert run_axe(page) == {}
        page.get_by_role("dialog").get_by_role("textbox").fill(token)
        page.get_by_role("dialog").get_by_role("button", name="Authorize").click()
        page.get_by_role("button", name="Logout").wait_for()
        assert run_axe(page) == {}
        page.keyboard.press("Escape")

        execute(page)
        assert_shown(page, "200", *NAMES)
        assert run_axe(page) == {}

        # Only on a phone: axe confuses text that is scrolled away in the second column with other text there.
        if width == min(WIDTHS):
            page.get_by_role("button", name="Clear").click()
            page.get_by_role("tab", name="Schema").first.click()
            page.get_by_role("button", name="Expand all").first.click()
            page.locator(".opblock-head .opblock-summary-control").click()
            page.locator(".opblock-head").get_by_role("button", name="Execute").wait_for()
            assert run_axe(page) == {}
        assert visited.complaints == []


CONTRAST = """([selector, pseudoElement]) => {
    const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const luminance = (rgb) => [0.2126, 0.7152, 0.0722]
        .reduce((sum, share, i) => sum + share * linear(rgb[i] / 255), 0);
    let box = document.querySelector(selector);
    const style = getComputedStyle(box, pseudoElement);
    const background = () => parse(getComputedStyle(box).backgroundColor);
    while (background()[3] === 0) box = box.parentElement;
    const [r, g, b, alpha = 1] = parse(style.color);
    const opacity = alpha * style.opacity;
    const text = [r, g, b].map((part, i) => part * opacity + background()[i] * (1 - opacity));
    const [dark, light] = [text, background()].map(luminance).sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
}"""


@pytest.mark.parametrize("colour_scheme", COLOUR_SCHEMES)
def test_text_that_axe_skips_has_contrast(
    browser: Browser, published_cases: CasesDatabase, colour_scheme: str
) -> None:
    with (
        serving(published_cases) as address,
        visit(browser, color_scheme=colour_scheme) as visited,
    ):
        page = visited.page
        page.goto(f"{address}/docs")
        page.get_by_label("limit").wait_for()
        contrasts = {
            # The arrow of a list is an image, so axe does not know what is behind the text.
            text: page.evaluate(CONTRAST, text)
            for text in (("input", "::placeholder"), (".required", "::after"), ("select", ""))
        }
        assert {text: contrast for text, contrast in contrasts.items() if contrast < 4.5} == {}


def test_every_field_has_a_name_and_a_description(browser: Browser, published_cases: CasesDatabase) -> None:
    with serving(published_cases, **TOKENS) as address, visit(browser) as visited:
        page = visited.page
        page.goto(f"{address}/docs")
        for name, field in CASE_QUERY.load_fields.items():
            named = page.get_by_label(name, exact=True)
            if isinstance(field, fields.List):
                expect(named).to_have_role("group")
                named.get_by_role("button", name="Add string item").click()
                named = named.get_by_label(name, exact=True)
            expect(named).to_have_role("combobox" if name.startswith("sort_") else "textbox")
            expect(named).to_have_accessible_description(
                re.compile(re.escape(field.metadata["description"].replace("`", "")))
            )
            expect(named).to_have_attribute("aria-required", str(field.required).lower())
            expect(named).to_have_attribute("aria-invalid", "false")

        limit = page.get_by_label("limit", exact=True)
        limit.fill("many")
        execute(page)
        expect(limit).to_be_focused()
        expect(page.get_by_role("status")).to_be_empty()
        expect(limit).to_have_attribute("aria-invalid", "true")
        expect(limit).to_have_accessible_description("Value must be an integer")

        page.get_by_role("button", name="Authorize").click()
        expect(page.get_by_role("dialog").get_by_role("textbox")).to_have_accessible_name("Value:")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_button_covers_text(browser: Browser, published_cases: CasesDatabase, width: int) -> None:
    with (
        serving(published_cases) as address,
        visit(browser, viewport={"width": width, "height": 800}) as visited,
    ):
        page = visited.page
        page.goto(f"{address}/docs")
        execute(page)
        assert_shown(page, "200", *NAMES)
        buttons = page.locator(".copy-to-clipboard:visible, .download-contents:visible").all()
        texts = page.locator("pre:visible, h4:visible, h5:visible, .opblock-summary-path:visible").all()
        boxes = [[element.bounding_box() for element in elements] for elements in (buttons, texts)]
        assert len(boxes[0]) >= 4
        for button in boxes[0]:
            for text in boxes[1]:
                assert button is not None
                assert text is not None
                assert (
                    button["x"] + button["width"] <= text["x"]
                    or text["x"] + text["width"] <= button["x"]
                    or button["y"] + button["height"] <= text["y"]
                    or text["y"] + text["height"] <= button["y"]
                )


def test_execute_and_clear_keep_the_focus(browser: Browser, published_cases: CasesDatabase) -> None:
    with serving(published_cases) as address, visit(browser) as visited:
        page = visited.page
        held: list[Route] = []
        page.route("**/cases/all_cases*", lambda route: held.append(route))
        page.goto(f"{address}/docs")
        button = page.get_by_role("button", name="Execute")
        with page.expect_request("**/cases/all_cases*"):
            execute(page)
        expect(page.get_by_role("status")).to_have_text("Sending the request")
        expect(page.locator(".loading")).to_have_count(1)
        expect(button).to_be_focused()
        held[0].continue_()
        assert_shown(page, "200", *NAMES)
        expect(page.get_by_role("status")).to_have_text("Response 200")
        expect(button).to_be_focused()
        page.get_by_role("button", name="Clear").press("Enter")
        expect(page.locator(".live-responses-table")).to_have_count(0)
        expect(button).to_be_focused()


@pytest.mark.parametrize("width", WIDTHS)
def test_each_new_response_comes_into_sight(
    browser: Browser, published_cases: CasesDatabase, width: int
) -> None:
    def scroll_to_end(element: Locator) -> None:
        element.evaluate("box => box.scrollTo(0, box.scrollHeight)")

    with (
        serving(published_cases) as address,
        visit(browser, viewport={"width": width, "height": 640}) as visited,
    ):
        page = visited.page
        page.goto(f"{address}/docs")
        execute(page)
        assert_shown(page, "200", *NAMES)

        scroll_to_end(
            page.locator(".opblock-get .responses-inner")
        )  # only a wide screen has this second column
        scroll_to_end(page.locator("html"))
        page.get_by_label("max_age").fill("40")
        page.get_by_role("button", name="Execute").focus()
        scroll_to_end(page.locator("html"))
        page.keyboard.press("Enter")
        assert_shown(page, "200", NAMES[1])

        scroll_to_end(page.locator("html"))
        page.route("**/cases/all_cases*", lambda route: route.abort())
        page.keyboard.press("Enter")
        assert_shown(page, "Failed to fetch")
        expect(page.get_by_role("status")).to_have_text("Response missing")


def test_the_dialog_holds_the_focus_and_gives_it_back(
    browser: Browser, published_cases: CasesDatabase
) -> None:
    with serving(published_cases, **TOKENS) as address, visit(browser) as visited:
        page = visited.page
        page.goto(f"{address}/docs")
        for opener in (
            page.get_by_role("button", name="Authorize"),
            page.get_by_role("button", name="authorization button unlocked").first,
        ):
            opener.press("Enter")
            dialog = page.get_by_role("dialog", name="Available authorizations")
            expect(dialog).to_have_attribute("aria-modal", "true")
            expect(dialog.get_by_role("textbox")).to_be_focused()
            for _ in range(4):
                page.keyboard.press("Tab")
                # After the last element the browser's own controls have the focus, not the page behind.
                assert page.evaluate("document.activeElement.matches('dialog *, body')")
            page.keyboard.press("Escape")
            expect(dialog).to_have_count(0)
            expect(opener).to_be_focused()

        opener.press("Enter")
        dialog.get_by_role("textbox").fill("a token")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("button", name="Logout")).to_be_focused()
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("textbox")).to_be_focused()
        dialog.get_by_role("button", name="Close").press("Enter")
        expect(opener).to_be_focused()
        assert visited.complaints == []


def test_the_keyboard_scrolls_a_long_response(browser: Browser, published_cases: CasesDatabase) -> None:
    with serving(published_cases) as address, visit(browser, **PHONE) as visited:
        page = visited.page
        page.goto(f"{address}/docs")
        execute(page)
        assert_shown(page, "200", *NAMES)
        body = page.locator(".live-responses-table pre").first
        page.get_by_role("button", name="Download").focus()
        page.keyboard.press("Tab")
        expect(body).to_be_focused()
        page.keyboard.press("End")
        expect(body).not_to_have_js_property("scrollTop", 0)
