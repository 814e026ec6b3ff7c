"""A headless Chromium, driven as a person would: it sees pages, and says what they did."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.support.programs import tool

# Whatever a page wants of another machine fails, and the browser has nothing to ask of its maker.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


@dataclass(frozen=True)
class Visit:
    """A page, and what happened on it.

    Attributes:
        page: Playwright's page.
        requests: What it asked for, in order.
        complaints: What it wrote to the console as errors and warnings, and errors that nobody caught.
    """

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser for as long as the block lasts; without one the test is skipped."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Browser, **context: Any) -> Iterator[Visit]:
    """Open an empty page with a cache and storage of its own; ``context`` is Playwright's ``new_context``."""
    with browser.new_context(**context) as opened:
        visit = Visit(opened.new_page())
        visit.page.on("request", lambda request: visit.requests.append(request))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on(
            "console",
            lambda message: (
                visit.complaints.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        yield visit
