"""Clients that generators write from ``/openapi.json`` pass strict compilers, and call the service."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medmitra_cases.testing import Harness, harness
from tests.support.factories import DOCTOR
from tests.support.paths import OPENAPI_CLIENT
from tests.support.processes import run_program
from tests.support.programs import tool
from tests.support.tokens import SECRET

# Each program prints the same: a list, and then what it got for the same list, a mistake and a wrong token.
EXPECTED = [
    [200, ["Ada", "Zoë"], ["pending", None], 2026],
    [304],
    [400, "limit must be an integer from 1 to 1000"],
    [401, "the token is malformed"],
]

PYTHON = """
import json
import sys

from cases_api import AuthenticatedClient
from cases_api.api.cases import get_all_cases
from cases_api.models import CaseList, Error, GetAllCasesSortBy

url, user_id, token = sys.argv[1:]
with AuthenticatedClient(base_url=url, token=token) as client:
    found = get_all_cases.sync_detailed(
        client=client, user_id=user_id, gender=["female", "male"], sort_by=GetAllCasesSortBy.PATIENT_NAME
    )
    assert isinstance(found.parsed, CaseList)
    cases = found.parsed.cases
    created = cases[0].created_at
    assert created is not None
    names = [case.patient_name for case in cases]
    print(json.dumps([int(found.status_code), names, [case.status for case in cases], created.year]))
    unchanged = get_all_cases.sync_detailed(
        client=client,
        user_id=user_id,
        gender=["female", "male"],
        sort_by=GetAllCasesSortBy.PATIENT_NAME,
        if_none_match=found.headers["ETag"],
    )
    print(json.dumps([int(unchanged.status_code)]))
    mistake = get_all_cases.sync_detailed(client=client, user_id=user_id, limit=0)
    assert isinstance(mistake.parsed, Error)
    print(json.dumps([int(mistake.status_code), mistake.parsed.detail]))
with AuthenticatedClient(base_url=url, token="made up") as client:
    refused = get_all_cases.sync_detailed(client=client, user_id=user_id)
    assert isinstance(refused.parsed, Error)
    print(json.dumps([int(refused.status_code), refused.parsed.detail]))
"""

TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };
const [url, user_id, token] = process.argv.slice(2) as [string, string, string];
const cases_api = createClient<paths>({ baseUrl: url });

async function get(token: string, query: { gender?: string[]; limit?: number }, etag?: string) {
  const headers = { Authorization: `Bearer ${token}` };
  const header = etag === undefined ? {} : { "If-None-Match": etag };
  return cases_api.GET("/cases/all_cases", {
    headers,
    params: { query: { user_id, sort_by: "patient_name", ...query }, header },
  });
}

const found = await get(token, { gender: ["female", "male"] });
const cases: components["schemas"]["Case"][] = found.data?.cases ?? [];
const created: string | null | undefined = cases[0]?.created_at;
const names = cases.map((each) => each.patient_name);
print(found, names, cases.map((each) => each.status), Number(created?.slice(0, 4)));
const etag = found.response.headers.get("ETag") ?? undefined;
print(await get(token, { gender: ["female", "male"] }, etag));
const mistake = await get(token, { limit: 0 });
print(mistake, mistake.error?.detail);
const refused = await get("made up", {});
print(refused, refused.error?.detail);

function print({ response }: { response: Response }, ...values: unknown[]) {
  console.log(JSON.stringify([response.status, ...values]));
}
"""


@pytest.fixture(scope="module")
def service(server_dsn: str) -> Iterator[Harness]:
    """A service that requires tokens, with two cases."""
    with harness({"MEDMITRA_TEST_DATABASE_URL": server_dsn, "MEDMITRA_JWT_SECRET": SECRET}) as started:
        created = {"user_id": DOCTOR, "created_at": "2026-03-04T10:30:00Z"}
        started.add_case(**created, patient_name="Zoë", patient_gender="female", status=None)
        started.add_case(**created, patient_name="Ada", patient_gender="male", status="pending")
        started.add_case(**created, patient_name="Eve", patient_gender="other")
        yield started


def run(*command: str | Path, folder: Path) -> str:
    result = run_program(command, {}, cwd=folder)
    assert result.returncode == 0, (result.stdout, result.stderr)
    return result.stdout


def arguments(service: Harness) -> tuple[str, str, str]:
    return service.base_url, DOCTOR, service.token(DOCTOR)


def test_a_generated_python_client_calls_the_service(service: Harness, tmp_path: Path) -> None:
    generate = ("-m", "openapi_python_client", "generate", "--meta", "none")
    document = ("--url", f"{service.base_url}/openapi.json", "--output-path", "cases_api")
    run(sys.executable, *generate, *document, folder=tmp_path)
    (tmp_path / "program.py").write_text(PYTHON)
    run(sys.executable, "-m", "mypy", "--strict", "program.py", "cases_api", folder=tmp_path)
    printed = run(sys.executable, "program.py", *arguments(service), folder=tmp_path)
    assert list(map(json.loads, printed.splitlines())) == EXPECTED


def test_a_generated_typescript_client_calls_the_service(service: Harness, tmp_path: Path) -> None:
    node, modules = tool("node"), OPENAPI_CLIENT / "node_modules"
    if not modules.exists():
        pytest.skip("openapi-typescript is not installed; make installs it if there is npm")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "program.ts").write_text(TYPESCRIPT)
    generator, compiler = (modules / ".bin" / name for name in ("openapi-typescript", "tsc"))
    run(node, generator, f"{service.base_url}/openapi.json", "-o", "schema.d.ts", folder=tmp_path)
    strict = ("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess")
    run(node, compiler, *strict, "--target", "es2022", "--module", "nodenext", "program.ts", folder=tmp_path)
    printed = run(node, "program.js", *arguments(service), folder=tmp_path)
    assert list(map(json.loads, printed.splitlines())) == EXPECTED
