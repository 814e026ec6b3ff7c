"""One Postgres for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.faults.postgres import Postgres, postgres_with_cases


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    with postgres_with_cases() as server:
        yield server


@pytest.fixture
def postgres(_postgres: Postgres) -> Iterator[Postgres]:
    """Yield a running server with the doctor's cases; if the test stops it, start it again."""
    yield _postgres
    if not _postgres.is_running:
        _postgres.start()
