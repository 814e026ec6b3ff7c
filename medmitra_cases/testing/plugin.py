"""The pytest plugin: the fixture ``medmitra``, and the fixtures that it uses."""

from collections.abc import Generator, Iterator, Mapping

import pytest

from medmitra_cases.testing import Harness, HarnessError, harness


@pytest.fixture(scope="session")
def medmitra_settings() -> Mapping[str, str]:
    """Settings of the service, by environment variable. A conftest.py can override this fixture."""
    return {}


@pytest.fixture(scope="session")
def medmitra_harness(medmitra_settings: Mapping[str, str]) -> Iterator[Harness]:
    """The service, started once per session. pytest-xdist starts one for each worker."""
    try:
        with harness(medmitra_settings) as started:
            yield started
    except HarnessError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def medmitra(medmitra_harness: Harness) -> Harness:
    """The service with no cases and an empty log."""
    try:
        medmitra_harness.clear()
        medmitra_harness.log()
    except HarnessError as error:
        pytest.fail(str(error), pytrace=False)
    return medmitra_harness


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the service's log to the report of a failed test."""
    report = yield
    medmitra = getattr(item, "funcargs", {}).get("medmitra")
    if report.failed and isinstance(medmitra, Harness):
        try:
            log = medmitra.log()
        except Exception as error:
            # Another plugin may have replaced os.pread(). pytest would end the session.
            log = f"cannot be read: {error}"
        report.sections.append(("medmitra-cases log", log))
    return report
