"""Schemathesis reads what the service says of itself, and holds the running service to it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, GenerationMode
from schemathesis.config import SchemathesisConfig

from medmitra_cases.auth.tokens import mint_token
from medmitra_cases.docs.openapi import openapi
from tests.support import factories
from tests.support.factories import DOCTOR, CasesDatabase, case
from tests.support.processes import Running, serve
from tests.support.tokens import SECRET, bearer

CASES = [case(), case(), case(case_summary=None, status=None, created_at=None, updated_at=None)]
TOKENS = {"MEDMITRA_JWT_SECRET": SECRET}

# Names that are not documented change nothing, so there is nothing to find in sending some.
CONFIG = SchemathesisConfig.from_dict({"generation": {"allow-extra-parameters": False}})
same_requests_each_time = settings(
    max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)

own_table = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)


@contextmanager
def serving(database: CasesDatabase, document: dict[str, Any], **variables: str) -> Iterator[Running]:
    """The service with some cases, which says of itself what the test reads."""
    database.clear()
    database.add_decoys()
    database.add(*CASES)
    with serve(database.service_dsn, **variables) as server:
        assert json.loads(server.get("/openapi.json")[1]) == document
        yield server
        assert "Traceback" not in server.printed


@pytest.fixture(scope="module")
def open_to_all(layout_database: CasesDatabase) -> Iterator[Running]:
    with serving(layout_database, openapi(needs_tokens=False)) as server:
        yield server


@pytest.fixture(scope="module")
def asking_for_tokens(layout_database: CasesDatabase) -> Iterator[Running]:
    with serving(layout_database, openapi(needs_tokens=True), **TOKENS) as server:
        yield server


def check(case: Case[Any], server: Running, **headers: str) -> None:
    """Send a request and hold the answer against all that is documented.

    What is fit must be accepted, what is not must be refused. So fit requests name a case that there is, and
    no 30th of February, which a pattern cannot tell from the 28th.
    """
    assert case.meta is not None
    if case.meta.generation.mode is GenerationMode.POSITIVE:
        case.query["user_id"] = DOCTOR
        if "after" in case.query:
            case.query["after"] = CASES[0]["case_id"]
        for name in ("start_date", "end_date"):
            if name in case.query and not is_a_day(case.query[name][:10]):
                del case.query[name]
    case.call_and_validate(f"http://{server.host}:{server.port}", headers=headers)


def is_a_day(written: str) -> bool:
    try:
        date.fromisoformat(written)
    except ValueError:
        return False
    return True


@own_table
@schemathesis.openapi.from_dict(openapi(needs_tokens=False), config=CONFIG).parametrize()
@same_requests_each_time
def test_every_answer_is_as_documented(case: Case[Any], open_to_all: Running) -> None:
    check(case, open_to_all)


@own_table
@schemathesis.openapi.from_dict(openapi(needs_tokens=True), config=CONFIG).parametrize()
@same_requests_each_time
def test_every_answer_is_as_documented_where_tokens_are_asked_for(
    case: Case[Any], asking_for_tokens: Running
) -> None:
    issuer = factories.settings("dbname=postgres", **TOKENS)
    check(case, asking_for_tokens, **bearer(mint_token(issuer, DOCTOR, minutes=5)))
