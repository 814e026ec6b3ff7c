"""The peer Litestar + msgspec structs + asyncpg: rows become structs, which msgspec writes as JSON."""

from datetime import datetime
from uuid import UUID

from asyncpg_pool import SELECT_CASES, with_pool
from litestar import Litestar, get
from litestar.datastructures import State
from msgspec import Struct


class Case(Struct, gc=False):
    """One case, in the order of the columns. It refers to no container, so the garbage collector skips it."""

    case_id: UUID
    user_id: UUID
    patient_name: str
    patient_age: int
    patient_gender: str
    case_summary: str | None
    status: str | None
    created_at: datetime | None
    updated_at: datetime | None


class Cases(Struct):
    """All cases of one doctor."""

    cases: list[Case]


@get("/cases/all_cases")
async def all_cases(state: State, user_id: UUID) -> Cases:
    """Return all cases of one doctor."""
    return Cases([Case(*row) for row in await state.pool.fetch(SELECT_CASES, user_id)])


app = Litestar([all_cases], lifespan=[with_pool], openapi_config=None)
