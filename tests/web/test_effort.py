"""A request without a valid token costs no more if it is long: its token is checked before all else."""

import pytest
from flask import Flask

from medmitra_cases import create_app
from tests.support.effort import calls
from tests.support.factories import DOCTOR, settings
from tests.support.tokens import SECRET, URL

ORIGIN = "https://app.example"
NEARLY_32_KB = 31_500


@pytest.fixture(scope="module")
def app() -> Flask:
    """Return a service that needs tokens and has no database."""
    return create_app(
        settings("postgresql://127.0.0.1:1/nowhere", MEDMITRA_JWT_SECRET=SECRET, MEDMITRA_CORS_ORIGINS=ORIGIN)
    )


def repeated(text: str, length: int = NEARLY_32_KB) -> str:
    return text * (length // len(text))


@pytest.mark.parametrize("authorization", ["", "Bearer x.y.z"])
@pytest.mark.parametrize(
    "query",
    [
        repeated("a&", 16_000),
        repeated("a&"),
        repeated("a=b;"),
        repeated("%41"),
        repeated("user_id=&"),
        f"{repeated('a&')}&user_id={DOCTOR}",
        f"user_id={repeated('x')}",
        f"search={repeated('%00')}&user_id={DOCTOR}",
    ],
    ids=lambda query: query[:12],
)
def test_a_long_query_costs_no_more(app: Flask, query: str, authorization: str) -> None:
    fields = {"Authorization": authorization} if authorization else {}
    status, few = calls(app, URL, f"user_id={DOCTOR}", **fields)
    assert status == 401
    status, count = calls(app, URL, query, **fields)
    assert status == 401
    assert count <= few * 1.1


@pytest.mark.parametrize(
    "fields",
    [
        {"Authorization": f"Bearer {repeated('e30.')}"},
        {"Authorization": f"Bearer{repeated(' ')}"},
        {"If_None_Match": repeated('"a",')},
        {"Cookie": repeated("a=b; ")},
        {"Accept": repeated("a/a,")},
        {"Origin": ORIGIN, "Access_Control_Request_Headers": repeated("a,")},
    ],
    ids=lambda fields: list(fields)[-1],
)
def test_long_fields_cost_no_more(app: Flask, fields: dict[str, str]) -> None:
    short = {name: value[:20] for name, value in fields.items()}
    status, few = calls(app, URL, f"user_id={DOCTOR}", **short)
    assert status == 401
    status, count = calls(app, URL, f"user_id={DOCTOR}", **fields)
    assert status == 401
    assert count <= few * 1.1


@pytest.mark.parametrize(
    ("path", "method", "name", "short", "long"),
    [
        ("/", "GET", "Accept", "text/html, */*;q=0.8", repeated("a/a,", 16_000)),
        ("/", "GET", "Accept", "text/html, */*;q=0.8", repeated("text/html;q=0.5,")),
        ("/", "GET", "Accept", "text/html, */*;q=0.8", f"text/html;{repeated('a=b;')}"),
        ("/", "GET", "If_None_Match", '"a"', repeated('"a",')),
        ("/docs", "GET", "If_None_Match", '"a"', repeated('"a",')),
        ("/openapi.json", "GET", "If_Match", '"a"', repeated('"a",')),
        (URL, "OPTIONS", "Access_Control_Request_Headers", "authorization", repeated("a,")),
        (URL, "OPTIONS", "Access_Control_Request_Headers", "authorization", repeated("authorization,")),
    ],
    ids=lambda value: str(value)[:12],
)
def test_requests_that_need_no_token_cost_no_more(
    app: Flask, path: str, method: str, name: str, short: str, long: str
) -> None:
    preflight = {"Origin": ORIGIN, "Access_Control_Request_Method": "GET"}
    _, few = calls(app, path, method=method, **preflight, **{name: short})
    status, count = calls(app, path, method=method, **preflight, **{name: long})
    assert status == 200
    assert count <= few * 1.1
