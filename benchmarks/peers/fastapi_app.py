"""The peer FastAPI + asyncpg: the endpoint as the manuals show it, with a response model."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]  # comes without types
from fastapi import FastAPI, Request
from pydantic import BaseModel

CONNECTIONS = 8  # the default of the service, too

SELECT_CASES = """
SELECT
    case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at
FROM medmitra.cases
WHERE user_id = $1
ORDER BY id
"""


class Case(BaseModel):
    """One case."""

    case_id: UUID
    user_id: UUID
    patient_name: str
    patient_age: int
    patient_gender: str
    case_summary: str | None
    status: str | None
    created_at: datetime | None
    updated_at: datetime | None


class Cases(BaseModel):
    """All cases of one doctor."""

    cases: list[Case]


@asynccontextmanager
async def _with_pool(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS
    ) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=_with_pool)


@app.get("/cases/all_cases", response_model=Cases)
async def all_cases(request: Request, user_id: UUID) -> Any:
    """Return all cases of one doctor; FastAPI validates and serializes them as ``Cases``."""
    rows = await request.app.state.pool.fetch(SELECT_CASES, user_id)
    return {"cases": [dict(row) for row in rows]}
