"""The peer FastAPI + asyncpg: the endpoint as the manuals show it, with a response model."""

from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg_pool import SELECT_CASES, with_pool
from fastapi import FastAPI, Request
from pydantic import BaseModel


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


app = FastAPI(lifespan=with_pool)


@app.get("/cases/all_cases", response_model=Cases)
async def all_cases(request: Request, user_id: UUID) -> Any:
    """Return all cases of one doctor; FastAPI validates and serializes them as ``Cases``."""
    rows = await request.app.state.pool.fetch(SELECT_CASES, user_id)
    return {"cases": [dict(row) for row in rows]}
