"""``/openapi.json`` describes exactly what the service does."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from medmitra_cases import __version__
from medmitra_cases.auth.tokens import mint_token
from medmitra_cases.docs.openapi import openapi
from medmitra_cases.schemas.query import PARAMETERS
from medmitra_cases.web import cors
from tests.support import factories
from tests.support.factories import DOCTOR, KEYS, CasesDatabase, case
from tests.support.paths import DOCS, PUBLISHED, README, ROOT
from tests.support.processes import Running, serve
from tests.support.tokens import SECRET, bearer, issued

URL = "/cases/all_cases"
TARGET = f"{URL}?user_id={DOCTOR}"

TOKENS = {"MEDMITRA_JWT_SECRET": SECRET}
DOCUMENT = openapi(needs_tokens=True)
GET, HEAD = (DOCUMENT["paths"][URL][method] for method in ("get", "head"))

# The errors of a reverse proxy.
PROXY_STATUSES = ("414", "429", "502", "504")

# Headers of HTTP itself (RFC 9110, RFC 9112). OpenAPI excludes Content-Type.
UNDOCUMENTED_HEADERS = {"content-type", "content-length", "transfer-encoding", "connection", "date"}


def resolved(described: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the document, or the part that its ``$ref`` refers to."""
    if "$ref" not in described:
        return described
    part: dict[str, Any] = DOCUMENT
    for key in described["$ref"].removeprefix("#/").split("/"):
        part = part[key]
    return part


def body_errors(response: dict[str, Any], body: Any) -> list[str]:
    """Return the errors of a body against the schema of the document."""
    schema = {**response["content"]["application/json"]["schema"], "components": DOCUMENT["components"]}
    return [error.message for error in OAS31Validator(schema).iter_errors(body)]


@pytest.mark.parametrize("needs_tokens", [True, False])
def test_the_document_is_valid(needs_tokens: bool) -> None:
    document = json.loads(json.dumps(openapi(needs_tokens=needs_tokens)))
    assert next(iter(document.items()))[0] == "openapi"
    assert document["openapi"].startswith("3.1.")
    assert "(?P" not in json.dumps(document)  # only Python's patterns have this syntax
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_the_service_serves_the_document(client: FlaskClient) -> None:
    response = client.get("/openapi.json")
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.get_json() == openapi(needs_tokens=False)
    assert response.get_json()["info"]["version"] == __version__
    headers = {"If-None-Match": response.headers["ETag"]}
    assert client.get("/openapi.json", headers=headers).status_code == 304


@pytest.mark.parametrize("operation", [GET, HEAD], ids=["GET", "HEAD"])
def test_the_document_has_every_parameter_and_alias(operation: dict[str, Any]) -> None:
    parameters = [each for each in operation["parameters"] if each["in"] == "query"]
    names = [name for each in parameters for name in (each["name"], each.get("x-alias")) if name]
    assert sorted(names) == sorted(PARAMETERS)
    assert all(f"`{each['x-alias']}`" in each["description"] for each in parameters if "x-alias" in each)
    assert [each["name"] for each in operation["parameters"] if each.get("required")] == ["user_id"]
    assert {each["name"] for each in operation["parameters"] if each["in"] == "header"} == {
        "If-None-Match",
        "Prefer",
    }


def test_only_user_id_has_an_example() -> None:
    examples = {
        each["name"]: each.get("example")
        for each in GET["parameters"]
        if {"example", "examples", "default"} & {*each, *each["schema"]}
    }
    assert examples == {"user_id": DOCTOR}


def test_parameters_have_the_rules_of_their_fields() -> None:
    schemas = {each["name"]: each["schema"] for each in GET["parameters"]}
    assert schemas["limit"] == {"type": "integer", "minimum": 1, "maximum": 1_000}
    assert schemas["sort_order"] == {"type": "string", "enum": ["asc", "desc"]}
    assert schemas["search"]["maxLength"] == 100
    for name in ("status", "gender"):
        assert (schemas[name]["type"], schemas[name]["maxItems"]) == ("array", 20)
        assert schemas[name]["items"]["maxLength"] == 100
    assert re.search(schemas["user_id"]["pattern"], DOCTOR.upper())
    assert not re.search(schemas["user_id"]["pattern"], f"x{DOCTOR}")


def test_the_document_allows_the_empty_values_that_count_as_absent() -> None:
    names = {each["name"] for each in GET["parameters"] if not each.get("allowEmptyValue")}
    assert names == {"user_id", "status", "gender", "search", "If-None-Match", "Prefer"}


def test_a_case_has_the_nine_keys_in_order() -> None:
    schema = DOCUMENT["components"]["schemas"]["Case"]
    assert tuple(schema["properties"]) == KEYS
    assert sorted(schema["required"]) == sorted(KEYS)
    assert schema["additionalProperties"] is False


def test_the_example_is_the_published_example() -> None:
    example = GET["responses"]["200"]["content"]["application/json"]["example"]
    assert example == json.loads(PUBLISHED.read_text())
    assert body_errors(GET["responses"]["200"], example) == []


def api_page_section(section: str) -> str:
    """Return a section of docs/api.md."""
    _, heading, rest = (DOCS / "api.md").read_text().partition(f"\n## {section}\n")
    assert heading
    return rest.partition("\n## ")[0]


def test_the_api_page_and_the_readme_list_every_parameter() -> None:
    cells = re.findall(r"^\| (`.+?) \|", api_page_section("Parameters"), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(set(PARAMETERS) - {"user_id"})
    listed = README.read_text().partition("\nOptional parameters: ")[2].partition("\n\n")[0]
    parameters = [each["name"] for each in GET["parameters"] if each["in"] == "query"]
    assert re.findall(r"`(\w+)`", listed) == [name for name in parameters if name != "user_id"]


def test_the_api_page_lists_the_nine_keys_in_order() -> None:
    table = (DOCS / "api.md").read_text().partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == KEYS


def test_the_document_has_the_statuses_of_the_api_page() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \|", api_page_section("Errors"), re.MULTILINE)
    listed = {status for row in rows for status in row.split(", ")}
    # The document describes only existing paths and methods, so it has no 404 and no 405.
    assert {*GET["responses"]} == {*HEAD["responses"]} == (listed - {"404", "405"}) | {"200", "304"}


def test_the_document_has_the_errors_that_nginx_adds() -> None:
    configuration = (ROOT / "deploy" / "nginx.conf").read_text()
    (details,) = re.findall(r"^map \$status \$medmitra_cases_detail {\n(.*?)^}", configuration, re.M | re.S)
    of_nginx = dict(re.findall(r'(\d{3}|default) "(.*)";', details))
    for status in PROXY_STATUSES:
        response = GET["responses"][status]
        assert response["headers"] == {}  # another proxy sends others
        detail = response["content"]["application/json"]["example"]["detail"]
        expected = of_nginx.get(status, of_nginx["default"])
        assert re.sub(r"request id \w+", "request id $request_id", detail) == expected


def test_schemas_and_tags_have_names_for_generated_clients() -> None:
    # A class Cases with an attribute cases: openapi-python-client then wrote ``cases = cls(cases=cases)``.
    assert {*DOCUMENT["components"]["schemas"]} == {"Case", "CaseList", "Error"}
    declared = [tag["name"] for tag in DOCUMENT["tags"]]
    assert [operation["tags"] for operation in (GET, HEAD)] == [declared, declared]


def test_tokens_are_documented_if_they_are_required() -> None:
    ((name, scheme),) = DOCUMENT["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert GET["security"] == HEAD["security"] == [{name: []}]
    without = openapi(needs_tokens=False)
    assert "securitySchemes" not in without["components"]
    assert "WWW-Authenticate" not in without["components"]["headers"]
    for operation in without["paths"][URL].values():
        assert operation["security"] == []
        assert not {"401", "403"} & {*operation["responses"]}


def test_headers_that_cors_exposes_are_documented() -> None:
    assert {*cors.EXPOSED_HEADERS} <= {*GET["responses"]["200"]["headers"]}


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    layout_database.clear()
    layout_database.add(case(), case(), case(**NULLS))
    with serve(layout_database.service_dsn, **TOKENS) as server:
        yield server


OWN_TOKEN = bearer(mint_token(factories.settings("dbname=postgres", **TOKENS), DOCTOR, minutes=1_440))
# The columns that can be NULL.
NULLS = dict.fromkeys(("case_summary", "status", "created_at", "updated_at"))

REQUESTS: dict[str, tuple[str, dict[str, str], int]] = {
    "cases": (TARGET, OWN_TOKEN, 200),
    "a page": (f"{TARGET}&limit=2", OWN_TOKEN, 200),
    "not modified": (f"{TARGET}&limit=2", {**OWN_TOKEN, "If-None-Match": "*"}, 304),
    "strict": (TARGET, {**OWN_TOKEN, "Prefer": "handling=strict"}, 200),
    "no user_id": (URL, OWN_TOKEN, 400),
    "no token": (TARGET, {}, 401),
    "an expired token": (TARGET, bearer(issued(exp=1)), 401),
    "another doctor": (TARGET[:-1] + "7", OWN_TOKEN, 403),
    "a long body": (TARGET, {**OWN_TOKEN, "Content-Length": "65537"}, 413),
    "a long header": (TARGET, {**OWN_TOKEN, "X": "x" * 262_144}, 431),
    "an unknown transfer coding": (TARGET, {**OWN_TOKEN, "Transfer-Encoding": "gzip"}, 501),
}


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("target", "headers", "status"), REQUESTS.values(), ids=REQUESTS)
def test_responses_match_the_document(
    server: Running, target: str, headers: dict[str, str], status: int, method: str
) -> None:
    response, body = server.get(target, method, **headers)
    assert response.status == status
    described = DOCUMENT["paths"][URL][method.lower()]["responses"][str(status)]
    sent = {name.lower() for name in response.headers} - UNDOCUMENTED_HEADERS
    documented = {name.lower(): resolved(header) for name, header in described["headers"].items()}
    assert sent <= {*documented}
    assert {name for name, header in documented.items() if header.get("required")} <= sent
    if "content" in described:
        assert body_errors(described, json.loads(body)) == []
    else:
        assert body == b""


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
def test_examples_of_errors_are_real_responses(server: Running, client_without_database: FlaskClient) -> None:
    errors = {
        (str(status), server.get(target, **headers)[1].decode())
        for target, headers, status in REQUESTS.values()
        if status > 304
    }
    failed = client_without_database.get(TARGET, headers={"X-Request-ID": "3f9c0a7be1d2485c"})
    errors.add(("500", failed.text))
    for status, response in GET["responses"].items():
        if status not in {"200", "304", *PROXY_STATUSES}:
            example = response["content"]["application/json"]["example"]
            assert (status, json.dumps(example, separators=(",", ":"))) in errors
