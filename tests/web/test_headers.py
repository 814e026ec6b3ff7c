"""What browsers look at: which pages may read the answers, and what each answer may do."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from medmitra_cases import create_app
from medmitra_cases.auth.tokens import mint_token
from tests.support import factories
from tests.support.factories import DOCTOR, CasesDatabase, case
from tests.support.processes import Running, serve

URL = "/cases/all_cases"
ASKED = f"{URL}?user_id={DOCTOR}"
ORIGINS = ["https://app.example", "http://localhost:3000", "http://[::1]:3000", "capacitor://localhost"]
ALLOW_ORIGIN = "Access-Control-Allow-Origin"
SECRET = "test-secret-of-thirty-two-bytes-or-more"


@pytest.fixture(params=[{}, {"MEDMITRA_JWT_SECRET": SECRET}], ids=["no tokens", "tokens"])
def pages(database: CasesDatabase, request: pytest.FixtureRequest) -> Iterator[FlaskClient]:
    """A client of a service that pages of some origins may read."""
    variables = {"MEDMITRA_CORS_ORIGINS": ", ".join(ORIGINS), **request.param}
    with factories.client_on(database.service_dsn, **variables) as client:
        yield client


def vary(response: TestResponse) -> set[str]:
    return {name.strip() for name in response.headers["Vary"].split(",")}


def cors_fields(response: TestResponse) -> list[str]:
    return [name for name, _ in response.headers if name.startswith("Access-Control-")]


def preflight(client: FlaskClient, origin: str, method: str = "GET", url: str = ASKED) -> TestResponse:
    return client.options(
        url,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            # As browsers send them: in lower case, sorted.
            "Access-Control-Request-Headers": "authorization,content-type,x-stranger",
        },
    )


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_web_clients_preflight_passes(pages: FlaskClient, origin: str) -> None:
    response = preflight(pages, origin)
    assert response.status_code == 200
    assert response.headers.getlist(ALLOW_ORIGIN) == [origin]
    assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert response.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
    assert response.headers["Access-Control-Max-Age"] == "3600"
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert "Origin" in vary(response)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_a_preflight_for_what_would_change_something_fails(pages: FlaskClient, method: str) -> None:
    assert "Access-Control-Allow-Methods" not in preflight(pages, ORIGINS[0], method).headers


STRANGERS = [
    "https://app.example.evil.example",
    "https://evilapp.example",
    "https://app-example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example\n",
    "http://localhost:30000",
    "http://localhost",
    "http://1:3000",
    "null",
    "*",
    "",
]


@pytest.mark.parametrize("origin", STRANGERS)
def test_a_strangers_preflight_fails(pages: FlaskClient, origin: str) -> None:
    environ = {"HTTP_ORIGIN": origin, "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"}
    response = pages.options(ASKED, environ_overrides=environ)
    assert not cors_fields(response)
    assert "Origin" in vary(response)


@pytest.mark.parametrize("origin", STRANGERS)
def test_a_strangers_page_reads_nothing(pages: FlaskClient, origin: str) -> None:
    response = pages.get(ASKED, environ_overrides={"HTTP_ORIGIN": origin})
    assert ALLOW_ORIGIN not in response.headers
    assert "Origin" in vary(response)


def test_a_page_may_read_what_it_needs(pages: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    response = pages.get(ASKED, headers={"Origin": ORIGINS[0], "Content-Type": "application/json"})
    assert response.headers[ALLOW_ORIGIN] == ORIGINS[0]
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert exposed == ["ETag", "Link", "X-Request-ID", "X-Total-Count"]
    assert response.headers["X-Request-ID"]


def test_a_page_may_ask_for_what_is_new(pages: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    headers = {
        "Origin": ORIGINS[0],
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,content-type,if-none-match",
    }
    allowed = pages.options(ASKED, headers=headers).headers["Access-Control-Allow-Headers"]
    assert allowed == "authorization, content-type, if-none-match"
    configured = factories.settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)
    asked = {"Authorization": f"Bearer {mint_token(configured, DOCTOR, minutes=1)}", "Origin": ORIGINS[0]}
    full = pages.get(ASKED, headers=asked)
    for known in (full.headers["ETag"], "*"):
        response = pages.get(ASKED, headers={"If-None-Match": known, **asked})
        assert response.status_code == 304
        # A browser takes these for those of the answer that it has kept.
        assert cors_fields(response) == cors_fields(full) != []
        assert response.headers[ALLOW_ORIGIN] == ORIGINS[0]
        assert response.headers["Access-Control-Expose-Headers"].startswith("ETag, Link, ")
        assert vary(response) == vary(full) == {"Authorization", "Origin"}


def test_a_strangers_page_is_not_told_whether_there_is_something_new(
    pages: FlaskClient, database: CasesDatabase
) -> None:
    database.add(case())
    response = pages.get(ASKED, headers={"Origin": "https://evil.example", "If-None-Match": "*"})
    assert not cors_fields(response)
    assert "Origin" in vary(response)


@pytest.mark.parametrize(
    ("url", "method"), [(URL, "GET"), (ASKED, "POST"), ("/nowhere", "GET"), (f"{URL}?user_id=1", "HEAD")]
)
def test_a_page_may_read_errors_too(pages: FlaskClient, url: str, method: str) -> None:
    response = pages.open(url, method=method, headers={"Origin": ORIGINS[0]})
    assert response.status_code in (400, 401, 404, 405)
    assert response.headers[ALLOW_ORIGIN] == ORIGINS[0]
    assert "Origin" in vary(response)


def test_a_page_may_read_a_500() -> None:
    app = create_app(
        factories.settings(
            "postgresql://127.0.0.1:1/nowhere",
            MEDMITRA_DATABASE_WAIT_SECONDS="0",
            MEDMITRA_CORS_ORIGINS=ORIGINS[0],
        )
    )
    response = app.test_client().get(ASKED, headers={"Origin": ORIGINS[0]})
    assert response.status_code == 500
    assert response.headers[ALLOW_ORIGIN] == ORIGINS[0]


def test_a_cache_keeps_answers_to_different_askers_apart(pages: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    configured = factories.settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)
    token = {"Authorization": f"Bearer {mint_token(configured, DOCTOR, minutes=1)}"}
    for origin in ({}, {"Origin": ORIGINS[0]}, {"Origin": "https://evil.example"}):
        response = pages.get(ASKED, headers={**token, **origin})
        assert response.status_code == 200
        assert vary(response) == {"Authorization", "Origin"}
        assert response.headers["Cache-Control"] == "private, no-cache"


def test_without_origins_no_page_reads_anything(client: FlaskClient) -> None:
    for response in (client.get(ASKED, headers={"Origin": ORIGINS[0]}), preflight(client, ORIGINS[0])):
        assert not cors_fields(response)


@pytest.mark.parametrize(
    ("url", "method"),
    [(ASKED, "GET"), (URL, "GET"), (ASKED, "POST"), ("/nowhere", "GET"), (ASKED, "OPTIONS")],
)
def test_no_answer_is_run_or_framed(client: FlaskClient, method: str, url: str) -> None:
    headers = client.open(url, method=method).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = {part.strip() for part in headers["Content-Security-Policy"].split(";")}
    assert policy == {
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    }


def test_every_answer_names_its_request(client: FlaskClient) -> None:
    ids = {client.get(url).headers["X-Request-ID"] for url in (ASKED, URL, "/nowhere")}
    assert len(ids) == 3
    assert (
        client.get(ASKED, headers={"X-Request-ID": "nightshift-1"}).headers["X-Request-ID"] == "nightshift-1"
    )


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    with serve(
        layout_database.service_dsn,
        MEDMITRA_CORS_ORIGINS=ORIGINS[0],
    ) as server:
        yield server


@pytest.mark.parametrize(
    "request_line",
    [
        pytest.param(f"GET {ASKED} HTTP/1.1", id="200"),
        pytest.param("GET  / HTTP/1.1", id="400, of waitress"),
        pytest.param("GET / HTTP/1.1\r\nX: " + "x" * 262_144, id="431, of waitress"),
    ],
)
def test_answers_that_do_not_come_from_the_application_are_as_safe(
    server: Running, request_line: str
) -> None:
    answer = server.send(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = answer.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    assert b"x-content-type-options: nosniff" in head
    assert any(line.startswith(b"content-security-policy: default-src 'none'") for line in head)
    assert not [line for line in head if line.startswith(b"server:")]
