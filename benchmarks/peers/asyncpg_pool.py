"""The statement and the connections of the peers with asyncpg."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # comes without types

CONNECTIONS = 8  # the default of the service, too

SELECT_CASES = """
SELECT
    case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at
FROM medmitra.cases
WHERE user_id = $1
ORDER BY id
"""


@asynccontextmanager
async def with_pool(app: Any) -> AsyncIterator[None]:
    """Keep a pool in the state of an application while it runs."""
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS
    ) as pool:
        app.state.pool = pool
        yield
