"""``/``, ``/openapi.json`` and ``/docs``: redirects, links, files, caching and security headers."""

import logging
from urllib.parse import urljoin

import pytest
from flask.testing import FlaskClient

from medmitra_cases import __version__, create_app
from tests.support import factories
from tests.support.tokens import SECRET, detail

ASSETS = [
    "accessibility.js",
    "docs.css",
    "docs.js",
    "favicon-32x32.png",
    "swagger-ui.css",
    "swagger-ui-bundle.js",
]
PATHS = ["/", "/openapi.json", "/docs", *(f"/docs/{name}" for name in ASSETS)]
BROWSER_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.fixture(scope="module", params=[{}, {"MEDMITRA_JWT_SECRET": SECRET}], ids=["no tokens", "tokens"])
def client(request: pytest.FixtureRequest) -> FlaskClient:
    """Return a client of a service that has no database, with and without required tokens."""
    return create_app(factories.settings("postgresql://127.0.0.1:1/nowhere", **request.param)).test_client()


@pytest.mark.parametrize("accept", [BROWSER_ACCEPT, "text/html", "text/*, application/json;q=0.9"])
def test_the_root_redirects_browsers_to_the_page(client: FlaskClient, accept: str) -> None:
    response = client.get("/", headers={"Accept": accept})
    assert (response.status_code, response.data) == (302, b"")
    # Relative, because a proxy may publish the service below a path that the service does not know.
    assert response.headers["Location"] == "docs"
    assert response.headers["Vary"] == "Accept"


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/json, text/html;q=0.9", "x", None]
)
def test_the_root_returns_links_to_other_clients(client: FlaskClient, accept: str | None) -> None:
    response = client.get("/", headers={"Accept": accept} if accept else {})
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.headers["Vary"] == "Accept"
    assert response.get_json() == {
        "name": "medmitra-cases",
        "version": __version__,
        "links": {"cases": "cases/all_cases", "docs": "docs", "openapi": "openapi.json"},
    }
    targets = {name: urljoin("/", link) for name, link in response.get_json()["links"].items()}
    statuses = {name: client.get(target).status_code for name, target in targets.items()}
    assert statuses in ({"cases": status, "docs": 200, "openapi": 200} for status in (400, 401))


@pytest.mark.parametrize("path", PATHS)
def test_caches_must_revalidate(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-cache"
    tag = response.headers["ETag"]
    for sent in (tag, f"W/{tag}", f'{tag[:-1]}-gzip"'):
        again = client.get(path, headers={"If-None-Match": sent})
        assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("path", PATHS)
def test_only_get_and_head_are_allowed(client: FlaskClient, path: str) -> None:
    head = client.head(path)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(client.get(path).data))
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.open(path, method=method).status_code == 405


@pytest.mark.parametrize("path", PATHS)
def test_requests_write_no_line_to_the_audit(
    client: FlaskClient, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "medmitra_cases.audit"):
        client.get(path)
    assert caplog.records == []


def test_a_trailing_slash_redirects_to_the_page(client: FlaskClient) -> None:
    response = client.get("/docs/")
    assert (response.status_code, response.headers["Location"]) == (308, "../docs")


@pytest.mark.parametrize(
    "name",
    [
        *("index.html", "swagger-ui.js", "swagger-ui-standalone-preset.js", "VERSION", "LICENSE"),
        *("swagger-ui.css/", "x/docs.css", "../docs.py", "%2e%2e/docs.py", "..%2fdocs.py", "docs.css%00"),
    ],
)
def test_no_other_file_is_served(client: FlaskClient, name: str) -> None:
    response = client.get(f"/docs/{name}")
    assert response.status_code == 404
    assert "not found" in detail(response)


def test_only_the_page_may_load_files_of_its_origin(client: FlaskClient) -> None:
    (policy,) = client.get("/docs").headers.getlist("Content-Security-Policy")
    rules = dict(rule.split(maxsplit=1) for rule in policy.split(";"))
    assert rules.pop("img-src") == "'self' data:"
    assert rules == {
        **dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"),
        **dict.fromkeys(("script-src", "style-src", "connect-src"), "'self'"),
    }
    for path in PATHS:
        if path != "/docs":
            (policy,) = client.get(path).headers.getlist("Content-Security-Policy")
            assert policy.startswith("default-src 'none';")
            assert "'self'" not in policy


def test_the_page_has_no_inline_styles_or_scripts(client: FlaskClient) -> None:
    page = client.get("/docs").text
    assert "<style" not in page
    assert "></script>" in page
    assert page.count("<script src=") == page.count("<script")
    assert "//" not in page  # no URL of another host


@pytest.mark.parametrize("path", PATHS)
def test_the_paths_do_not_exist_if_docs_are_off(path: str) -> None:
    app = create_app(factories.settings("postgresql://127.0.0.1:1/nowhere", MEDMITRA_DOCS="0"))
    response = app.test_client().get(path, headers={"Accept": BROWSER_ACCEPT})
    assert response.status_code == 404
    assert "not found" in detail(response)
