"""Schemathesis compares the running service with its OpenAPI document."""

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

# Parameters that are not documented have no effect, so requests with them would find nothing.
CONFIG = SchemathesisConfig.from_dict({"generation": {"allow-extra-parameters": False}})
same_requests_each_run = settings(
    max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)

own_table = pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)


@contextmanager
def serving(database: CasesDatabase, document: dict[str, Any], **variables: str) -> Iterator[Running]:
    """Run the service with some cases, and check that it serves this document."""
    database.clear()
    database.add_decoys()
    database.add(*CASES)
    with serve(database.service_dsn, **variables) as server:
        assert json.loads(server.get("/openapi.json")[1]) == document
        yield server
        assert "Traceback" not in server.printed


@pytest.fixture(scope="module")
def without_tokens(layout_database: CasesDatabase) -> Iterator[Running]:
    with serving(layout_database, openapi(needs_tokens=False)) as server:
        yield server


@pytest.fixture(scope="module")
def with_tokens(layout_database: CasesDatabase) -> Iterator[Running]:
    with serving(layout_database, openapi(needs_tokens=True), **TOKENS) as server:
        yield server


def check(case: Case[Any], server: Running, **headers: str) -> None:
    """Send a request, and compare the response with the document.

    The service must accept valid requests and reject invalid ones. Valid requests must therefore name an
    existing case, and no 30th of February, which a pattern cannot distinguish from the 28th.
    """
    assert case.meta is not None
    if case.meta.generation.mode is GenerationMode.POSITIVE:
        case.query["user_id"] = DOCTOR
        if case.query.get("after"):
            case.query["after"] = CASES[0]["case_id"]
        for name in ("start_date", "end_date", "updated_since"):
            if case.query.get(name) and not is_date(case.query[name][:10]):
                del case.query[name]
    case.call_and_validate(f"http://{server.host}:{server.port}", headers=headers)


def is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


@own_table
@schemathesis.openapi.from_dict(openapi(needs_tokens=False), config=CONFIG).parametrize()
@same_requests_each_run
def test_every_response_matches_the_document(case: Case[Any], without_tokens: Running) -> None:
    check(case, without_tokens)


@own_table
@schemathesis.openapi.from_dict(openapi(needs_tokens=True), config=CONFIG).parametrize()
@same_requests_each_run
def test_every_response_matches_the_document_if_tokens_are_required(
    case: Case[Any], with_tokens: Running
) -> None:
    config = factories.settings("dbname=postgres", **TOKENS)
    check(case, with_tokens, **bearer(mint_token(config, DOCTOR, minutes=5)))
