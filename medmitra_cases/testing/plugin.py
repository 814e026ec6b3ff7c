"""The pytest plugin: the fixture ``medmitra`` and what it is made of."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, suppress

import pytest

from medmitra_cases.testing import Harness, HarnessError, harness


@pytest.fixture(scope="session")
def medmitra_settings() -> Mapping[str, str]:
    """Settings of the service by their variables; a conftest.py may define it anew."""
    return {}


@pytest.fixture(scope="session")
def medmitra_harness(medmitra_settings: Mapping[str, str]) -> Iterator[Harness]:
    """The service, started once; under pytest-xdist once for each worker."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(harness(medmitra_settings))
        except HarnessError as error:
            pytest.fail(str(error), pytrace=False)
        yield started


@pytest.fixture
def medmitra(medmitra_harness: Harness) -> Harness:
    """The service without a case, and with nothing in its log."""
    medmitra_harness.clear()
    medmitra_harness.log()
    return medmitra_harness


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report of a test that failed have what the service logged meanwhile."""
    report = yield
    medmitra = getattr(item, "funcargs", {}).get("medmitra")
    if report.failed and isinstance(medmitra, Harness):
        with suppress(HarnessError):  # the session may be over
            report.sections.append(("medmitra-cases log", medmitra.log()))
    return report
