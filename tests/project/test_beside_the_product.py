"""A client like the product's, without and with the lines of docs/beside-the-product.md."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medmitra_cases.testing import Harness, harness
from tests.support.factories import DOCTOR
from tests.support.paths import TYPESCRIPT
from tests.support.processes import run_program
from tests.support.programs import tool
from tests.support.snippets import PATH, SERVICE, snippet
from tests.support.tokens import SECRET

# The lines of the client, and the lines of the page that replace them.
REPLACED = {
    "  const data = await makeBackendRequest(endpoint, {});\n": snippet(
        "docs/beside-the-product.md", "Tokens", "ts"
    ),
    "    status: backendCase.status,\n": snippet(
        "docs/beside-the-product.md", "What changes for users", "ts", 1
    ),
    "    throw new Error(errorData.error || `HTTP ${response.status}`);\n": snippet(
        "docs/beside-the-product.md", "What changes for users", "ts", 2
    ),
}

# Returns the cases of the doctor, or the message of the error: (service, filters, token).
GetCases = Callable[..., Any]


def compiled(folder: Path, code: str) -> GetCases:
    """Compile the client, and return a function that runs it."""
    folder.mkdir()
    (folder / "client.ts").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", PATH)
        node, tsc = tool("node"), tool("tsc")
        command = [tsc, "--strict", "--target", "es2022", "--module", "es2022", "client.ts"]
        result = run_program(command, {}, cwd=folder)
    assert result.returncode == 0, result.stdout
    client = (folder / "client.js").read_text()

    def get_cases(service: Harness, token: str | None = None, **filters: Any) -> Any:
        program = f"""
            {client.replace(SERVICE, service.base_url)}
            session.access_token = {json.dumps(token)} ?? undefined;
            const sent = getCases({json.dumps(filters)}, {json.dumps(DOCTOR)});
            console.log(JSON.stringify(await sent.catch((error) => error.message)));
        """
        run = run_program([node, "--input-type=module", "--eval", program], {})
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return get_cases


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> GetCases:
    """Return the client as it is."""
    code = (TYPESCRIPT / "product_client.ts").read_text()
    return compiled(tmp_path_factory.mktemp("product") / "client", code)


@pytest.fixture(scope="module")
def changed_client(tmp_path_factory: pytest.TempPathFactory) -> GetCases:
    """Return the client with the lines of the page."""
    code = (TYPESCRIPT / "product_client.ts").read_text()
    for line, lines in REPLACED.items():
        assert code.count(line) == 1
        code = code.replace(line, lines)
    return compiled(tmp_path_factory.mktemp("product") / "changed", code)


@pytest.fixture(scope="module")
def with_tokens(server_dsn: str) -> Iterator[Harness]:
    """Run a service that requires tokens."""
    with harness({"MEDMITRA_TEST_DATABASE_URL": server_dsn, "MEDMITRA_JWT_SECRET": SECRET}) as started:
        yield started


def add_cases(service: Harness) -> None:
    """Add a newer case before an older one, which has no status."""
    service.clear()
    service.add_case(user_id=DOCTOR, patient_name="Newer", status="failed", created_at="2026-03-05T00:00:00Z")
    service.add_case(user_id=DOCTOR, patient_name="Older", status=None, created_at="2026-03-04T00:00:00Z")
    service.add_case(user_id=DOCTOR, patient_name="Newest", status="", created_at="2026-03-06T00:00:00Z")


def names(cases: list[dict[str, Any]]) -> list[str]:
    return [case["name"] for case in cases]


def test_null_and_emptied_filters_return_the_whole_list(medmitra: Harness, client: GetCases) -> None:
    add_cases(medmitra)
    for filters in (
        {"page": None, "limit": None, "status": None, "startDate": None, "minAge": None, "sortBy": None},
        {"status": None, "startDate": "", "minAge": "", "sortBy": ""},
    ):
        assert names(client(medmitra, **filters)) == ["Newer", "Older", "Newest"]
    assert names(client(medmitra, status="", startDate="")) == ["Newest"]


def test_the_client_can_ask_for_the_order_of_the_product(medmitra: Harness, client: GetCases) -> None:
    add_cases(medmitra)
    newest_first = client(medmitra, sortBy="created_at", sortOrder="desc")
    assert names(newest_first) == ["Newest", "Newer", "Older"]


def test_a_null_status_reaches_the_page_unless_the_client_replaces_it(
    medmitra: Harness, client: GetCases, changed_client: GetCases
) -> None:
    add_cases(medmitra)
    assert [case["status"] for case in client(medmitra)] == ["failed", None, ""]
    assert [case["status"] for case in changed_client(medmitra)] == ["failed", "processing", ""]


def test_a_client_without_token_gets_the_list_after_it_got_four_lines(
    with_tokens: Harness, client: GetCases, changed_client: GetCases
) -> None:
    add_cases(with_tokens)
    token = with_tokens.token(DOCTOR)
    assert client(with_tokens, token) == "HTTP 401"
    assert changed_client(with_tokens) == "a token is needed (Authorization: Bearer <token>)"
    assert names(changed_client(with_tokens, token)) == ["Newer", "Older", "Newest"]


def test_the_changed_client_works_without_tokens_too(medmitra: Harness, changed_client: GetCases) -> None:
    add_cases(medmitra)
    assert names(changed_client(medmitra)) == names(changed_client(medmitra, "any")) != []
