"""The pytest plugin: the fixture ``medmitra``, and the fixtures that it uses."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, suppress

import pytest

from medmitra_cases.testing import Harness, HarnessError, harness


@pytest.fixture(scope="session")
def medmitra_settings() -> Mapping[str, str]:
    """Settings of the service, by environment variable. A conftest.py can override this fixture."""
    return {}


@pytest.fixture(scope="session")
def medmitra_harness(medmitra_settings: Mapping[str, str]) -> Iterator[Harness]:
    """The service, started once per session. pytest-xdist starts one for each worker."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(harness(medmitra_settings))
        except HarnessError as error:
            pytest.fail(str(error), pytrace=False)
        yield started


@pytest.fixture
def medmitra(medmitra_harness: Harness) -> Harness:
    """The service with no cases and an empty log."""
    medmitra_harness.clear()
    medmitra_harness.log()
    return medmitra_harness


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the service's log to the report of a failed test."""
    report = yield
    medmitra = getattr(item, "funcargs", {}).get("medmitra")
    if report.failed and isinstance(medmitra, Harness):
        with suppress(HarnessError):  # the harness may have ended
            report.sections.append(("medmitra-cases log", medmitra.log()))
    return report
