"""Takes the screenshot of ``/docs`` for docs/api.md: ``make screenshot``."""

from medmitra_cases import contract
from medmitra_cases.testing import harness
from tests.support.chromium import chromium, visit
from tests.support.paths import DOCS

SCREENSHOT = DOCS / "docs-page.png"


def take_screenshot() -> None:
    """Open the page, execute its request for the published cases, and save a screenshot of the response."""
    with harness() as medmitra, chromium() as browser:
        for case in contract.EXAMPLE["cases"]:
            medmitra.add_case(**case)
        # High enough for all parameters.
        with visit(browser, viewport={"width": 1280, "height": 2080}, color_scheme="light") as visited:
            visited.page.goto(medmitra.url("/docs"))
            visited.page.get_by_role("button", name="Execute").click()
            visited.page.get_by_text("Response headers").wait_for()
            visited.page.screenshot(path=SCREENSHOT, animations="disabled")


if __name__ == "__main__":
    take_screenshot()
