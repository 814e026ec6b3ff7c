"""One Postgres for all faults."""

from collections.abc import Iterator

import pytest

from tests.faults.postgres import Postgres, postgres_with_cases


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    with postgres_with_cases() as server:
        yield server


@pytest.fixture
def postgres(_postgres: Postgres) -> Iterator[Postgres]:
    """A server with the doctor's cases. A test may leave it stopped."""
    yield _postgres
    if not _postgres.runs:
        _postgres.start()
