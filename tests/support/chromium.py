"""Runs a headless Chromium, and records the requests and errors of its pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.support.programs import tool

# Requests to other machines fail, and the browser sends no requests of its own (updates, sync).
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
    """A page, with its requests and errors.

    Attributes:
        page: Playwright's page.
        requests: Its requests, in order.
        complaints: Errors and warnings on its console, and uncaught errors.
    """

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser until the block ends; skip the test if it is not installed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Browser, **context: Any) -> Iterator[Visit]:
    """Open an empty page with a separate cache and storage; ``context`` goes to ``Browser.new_context``."""
    with browser.new_context(**context) as browser_context:
        visit = Visit(browser_context.new_page())
        visit.page.on("request", lambda request: visit.requests.append(request))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on(
            "console",
            lambda message: (
                visit.complaints.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        yield visit
