"""Headers for browsers: CORS for allowed origins, and the security headers of every response."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from medmitra_cases import create_app
from medmitra_cases.auth.tokens import mint_token
from tests.support import factories
from tests.support.factories import DOCTOR, CasesDatabase, case
from tests.support.processes import Running, serve
from tests.support.tokens import SECRET

URL = "/cases/all_cases"
CASES_URL = f"{URL}?user_id={DOCTOR}"
ORIGINS = ["https://app.example", "http://localhost:3000", "http://[::1]:3000", "capacitor://localhost"]
ALLOW_ORIGIN = "Access-Control-Allow-Origin"


@pytest.fixture(params=[{}, {"MEDMITRA_JWT_SECRET": SECRET}], ids=["no tokens", "tokens"])
def cors_client(database: CasesDatabase, request: pytest.FixtureRequest) -> Iterator[FlaskClient]:
    """A client of a service that allows some origins."""
    variables = {"MEDMITRA_CORS_ORIGINS": ", ".join(ORIGINS), **request.param}
    with factories.client_on(database.service_dsn, **variables) as client:
        yield client


def vary(response: TestResponse) -> set[str]:
    return {name.strip() for name in response.headers["Vary"].split(",")}


def cors_fields(response: TestResponse) -> list[str]:
    return [name for name, _ in response.headers if name.startswith("Access-Control-")]


def preflight(client: FlaskClient, origin: str, method: str = "GET", url: str = CASES_URL) -> TestResponse:
    return client.options(
        url,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            # Browsers send these names in lower case and sorted.
            "Access-Control-Request-Headers": "authorization,content-type,x-other",
        },
    )


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_preflight_of_an_allowed_origin_passes(cors_client: FlaskClient, origin: str) -> None:
    response = preflight(cors_client, origin)
    assert response.status_code == 200
    assert response.headers.getlist(ALLOW_ORIGIN) == [origin]
    assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert response.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
    assert response.headers["Access-Control-Max-Age"] == "3600"
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert "Origin" in vary(response)


def test_a_preflight_allows_the_header_fields_of_the_setting() -> None:
    variables = {"MEDMITRA_CORS_ORIGINS": ORIGINS[0], "MEDMITRA_CORS_HEADERS": "traceparent, X-Client-Info"}
    with factories.client_on("dbname=postgres", **variables) as client:
        asked = "authorization,if-none-match,traceparent,x-client-info,x-other"
        headers = {
            "Origin": ORIGINS[0],
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": asked,
        }
        allowed = client.options(CASES_URL, headers=headers).headers["Access-Control-Allow-Headers"]
    assert allowed == "authorization, if-none-match, traceparent, x-client-info"


@pytest.mark.parametrize("origins", [{}, {"MEDMITRA_CORS_ORIGINS": ORIGINS[0]}], ids=["none", "another"])
def test_the_log_names_each_refused_origin_once(
    origins: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    long = "https://" + "x" * 10_000
    with factories.client_on("host=127.0.0.1 port=1", **origins) as client:
        for origin in ("https://a.example", "null", "https://a.example", "https://\x1b[31m", long, long):
            for path in (URL, "/openapi.json", "/nowhere"):
                client.get(path, environ_overrides={"HTTP_ORIGIN": origin})
        if origins:
            client.get(URL, headers={"Origin": ORIGINS[0]})
        for number in range(200):
            client.get("/nowhere", headers={"Origin": f"https://{number}.example"})
    lines = [record.getMessage() for record in caplog.records if record.name == "medmitra_cases.web.cors"]
    end = " cannot read responses: it is not in MEDMITRA_CORS_ORIGINS"
    names = ["https://a.example", "null", "https://?[31m", long[:100], "https://0.example"]
    assert lines[:5] == [f"pages of {name}{end}" for name in names]
    assert len(lines) == 100


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_a_preflight_for_a_writing_method_fails(cors_client: FlaskClient, method: str) -> None:
    assert "Access-Control-Allow-Methods" not in preflight(cors_client, ORIGINS[0], method).headers


OTHER_ORIGINS = [
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


@pytest.mark.parametrize("origin", OTHER_ORIGINS)
def test_a_preflight_of_another_origin_fails(cors_client: FlaskClient, origin: str) -> None:
    environ = {"HTTP_ORIGIN": origin, "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"}
    response = cors_client.options(CASES_URL, environ_overrides=environ)
    assert not cors_fields(response)
    assert "Origin" in vary(response)


@pytest.mark.parametrize("origin", OTHER_ORIGINS)
def test_another_origin_may_not_read_a_response(cors_client: FlaskClient, origin: str) -> None:
    response = cors_client.get(CASES_URL, environ_overrides={"HTTP_ORIGIN": origin})
    assert ALLOW_ORIGIN not in response.headers
    assert "Origin" in vary(response)


def test_an_allowed_origin_may_read_a_response(cors_client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    response = cors_client.get(CASES_URL, headers={"Origin": ORIGINS[0], "Content-Type": "application/json"})
    assert response.headers[ALLOW_ORIGIN] == ORIGINS[0]
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert exposed == ["ETag", "Link", "Preference-Applied", "X-Request-ID", "X-Total-Count"]
    assert response.headers["X-Request-ID"]


def test_an_allowed_origin_may_send_if_none_match(cors_client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    headers = {
        "Origin": ORIGINS[0],
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,content-type,if-none-match",
    }
    allowed = cors_client.options(CASES_URL, headers=headers).headers["Access-Control-Allow-Headers"]
    assert allowed == "authorization, content-type, if-none-match"
    token_settings = factories.settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)
    sent = {"Authorization": f"Bearer {mint_token(token_settings, DOCTOR, minutes=1)}", "Origin": ORIGINS[0]}
    full = cors_client.get(CASES_URL, headers=sent)
    for if_none_match in (full.headers["ETag"], "*"):
        response = cors_client.get(CASES_URL, headers={"If-None-Match": if_none_match, **sent})
        assert response.status_code == 304
        # The browser applies these headers to the response in its cache.
        assert cors_fields(response) == cors_fields(full) != []
        assert response.headers[ALLOW_ORIGIN] == ORIGINS[0]
        assert response.headers["Access-Control-Expose-Headers"].startswith("ETag, Link, ")
        assert vary(response) == vary(full) == {"Authorization", "Origin"}


def test_another_origin_may_not_read_a_304(cors_client: FlaskClient, database: CasesDatabase) -> None:
    database.add(case())
    response = cors_client.get(CASES_URL, headers={"Origin": "https://evil.example", "If-None-Match": "*"})
    assert not cors_fields(response)
    assert "Origin" in vary(response)


@pytest.mark.parametrize(
    ("url", "method"), [(URL, "GET"), (CASES_URL, "POST"), ("/nowhere", "GET"), (f"{URL}?user_id=1", "HEAD")]
)
def test_an_allowed_origin_may_read_errors(cors_client: FlaskClient, url: str, method: str) -> None:
    response = cors_client.open(url, method=method, headers={"Origin": ORIGINS[0]})
    assert response.status_code in (400, 401, 404, 405)
    assert response.headers[ALLOW_ORIGIN] == ORIGINS[0]
    assert "Origin" in vary(response)


def test_an_allowed_origin_may_read_a_500() -> None:
    app = create_app(
        factories.settings(
            "postgresql://127.0.0.1:1/nowhere",
            MEDMITRA_DATABASE_WAIT_SECONDS="0",
            MEDMITRA_CORS_ORIGINS=ORIGINS[0],
        )
    )
    response = app.test_client().get(CASES_URL, headers={"Origin": ORIGINS[0]})
    assert response.status_code == 500
    assert response.headers[ALLOW_ORIGIN] == ORIGINS[0]


def test_vary_separates_cached_responses_by_token_and_origin(
    cors_client: FlaskClient, database: CasesDatabase
) -> None:
    database.add(case())
    token_settings = factories.settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)
    token = {"Authorization": f"Bearer {mint_token(token_settings, DOCTOR, minutes=1)}"}
    for origin in ({}, {"Origin": ORIGINS[0]}, {"Origin": "https://evil.example"}):
        response = cors_client.get(CASES_URL, headers={**token, **origin})
        assert response.status_code == 200
        assert vary(response) == {"Authorization", "Origin"}
        assert response.headers["Cache-Control"] == "private, no-cache"


def test_no_origin_is_allowed_by_default(client: FlaskClient) -> None:
    for response in (client.get(CASES_URL, headers={"Origin": ORIGINS[0]}), preflight(client, ORIGINS[0])):
        assert not cors_fields(response)


@pytest.mark.parametrize(
    ("url", "method"),
    [(CASES_URL, "GET"), (URL, "GET"), (CASES_URL, "POST"), ("/nowhere", "GET"), (CASES_URL, "OPTIONS")],
)
def test_browsers_may_not_execute_or_frame_a_response(client: FlaskClient, method: str, url: str) -> None:
    headers = client.open(url, method=method).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = {part.strip() for part in headers["Content-Security-Policy"].split(";")}
    assert policy == {
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    }


def test_every_response_has_a_request_id(client: FlaskClient) -> None:
    ids = {client.get(url).headers["X-Request-ID"] for url in (CASES_URL, URL, "/nowhere")}
    assert len(ids) == 3
    assert (
        client.get(CASES_URL, headers={"X-Request-ID": "nightshift-1"}).headers["X-Request-ID"]
        == "nightshift-1"
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
        pytest.param(f"GET {CASES_URL} HTTP/1.1", id="200"),
        pytest.param("GET  / HTTP/1.1", id="400 of waitress"),
        pytest.param("GET / HTTP/1.1\r\nX: " + "x" * 262_144, id="431 of waitress"),
    ],
)
def test_every_response_of_the_server_has_the_security_headers(server: Running, request_line: str) -> None:
    response = server.send(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = response.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    assert b"x-content-type-options: nosniff" in head
    assert any(line.startswith(b"content-security-policy: default-src 'none'") for line in head)
    assert not [line for line in head if line.startswith(b"server:")]
