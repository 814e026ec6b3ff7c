"""``deploy/prometheus/`` in the real Prometheus: the scrape, the alerts, and each query of the dashboard."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from medmitra_cases.testing.postgres import open_folder
from tests.deploy.parts import DEPLOY, run_command, with_replacements
from tests.support.factories import DOCTOR, CasesDatabase, execute
from tests.support.paths import DOCS, ROOT
from tests.support.processes import TIMEOUT_SECONDS, Running, serve, wait_until
from tests.support.programs import background, free_port, tool

pytestmark = pytest.mark.deploy

TARGET = f"/cases/all_cases?user_id={DOCTOR}"
DASHBOARD = json.loads((DEPLOY / "prometheus/dashboard.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
# Grafana replaces these by the chosen job and by a period of several scrapes.
VARIABLES = {"$job": "medmitra-cases", "$__rate_interval": "10s"}


class Prometheus:
    """The API of a running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        try:
            return requests.get(f"{self._url}/-/ready", timeout=TIMEOUT_SECONDS).ok
        except requests.ConnectionError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        response = requests.get(f"{self._url}/api/v1/{path}", parameters, timeout=TIMEOUT_SECONDS)
        assert response.ok, response.text
        return response.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result


@contextmanager
def run_prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run Prometheus with ``deploy/prometheus/``; it scrapes one process of the service every 0.2 s."""
    replacements = {
        "scrape_interval: 15s": "scrape_interval: 200ms",
        "evaluation_interval: 15s": "evaluation_interval: 200ms",
        "alerts.yml]": f"{DEPLOY}/prometheus/alerts.yml]",
        '"127.0.1.0:8001", "127.0.1.1:8001", "127.0.1.2:8001", "127.0.1.3:8001"': f'"{target}"',
    }
    (folder / "prometheus.yml").write_text(with_replacements("prometheus/prometheus.yml", replacements))
    port = free_port()
    prometheus = Prometheus(port)
    command = (
        *(tool("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with background(*command, log=folder / "prometheus.log", is_ready=prometheus.is_ready):
        yield prometheus


@pytest.fixture(scope="module")
def service(password_database: CasesDatabase) -> Iterator[Running]:
    dsn = password_database.service_dsn
    with serve(dsn, MEDMITRA_ADMIN_LISTEN="127.0.0.1:0") as service:
        yield service


@pytest.fixture(scope="module")
def prometheus(service: Running) -> Iterator[Prometheus]:
    with open_folder() as folder, run_prometheus(folder, f"127.0.0.1:{service.admin_port}") as prometheus:
        yield prometheus


@pytest.fixture(scope="module")
def failures(service: Running, prometheus: Prometheus, password_database: CasesDatabase) -> None:
    """Let one request succeed and one fail, both after the first scrape and again after the next."""
    password_database.add_many([DOCTOR], 50)
    wait_until(lambda: prometheus.query("medmitra_build_info"))
    for count in (2, 4):
        assert service.get(TARGET)[0].status == 200
        with password_database.locked(), ThreadPoolExecutor(1) as pool:
            response = pool.submit(service.get, TARGET)
            wait_until(lambda: password_database.waiting)
            execute(password_database.owner, "SELECT pg_cancel_backend(%s)", password_database.waiting)
            assert response.result()[0].status == 500
        wait_until(partial(prometheus.query, f"sum(medmitra_http_request_seconds_count) == {count}"))


@pytest.mark.usefixtures("failures")
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_each_query_of_the_dashboard_returns_a_number(prometheus: Prometheus, query: str) -> None:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    assert "$" not in query
    results = prometheus.query(query)
    assert results
    assert all(re.fullmatch(r"[\d.e+-]+", result["value"][1]) for result in results), results


@pytest.mark.usefixtures("failures")
def test_the_dashboard_and_the_alerts_name_the_error_of_a_500(prometheus: Prometheus) -> None:
    query = QUERIES["Failures, by error A"].replace("$job", "medmitra-cases")
    (failing,) = prometheus.query(query.replace("$__rate_interval", "10s"))
    assert failing["metric"] == {"error": "query_timed_out"}
    wait_until(lambda: prometheus.get("alerts")["alerts"])
    (alert,) = prometheus.get("alerts")["alerts"]
    assert (alert["labels"]["alertname"], alert["labels"]["error"]) == (
        "MedmitraCasesFailing",
        "query_timed_out",
    )
    assert alert["annotations"]["summary"] == "50% of the requests for cases fail: query_timed_out"


def test_the_dashboard_lists_the_jobs_of_the_service(prometheus: Prometheus) -> None:
    (variable,) = (found for found in DASHBOARD["templating"]["list"] if found["name"] == "job")
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
    assert found is not None
    wait_until(lambda: prometheus.query(found[1]))
    assert prometheus.get(f"label/{found[2]}/values", **{"match[]": found[1]}) == ["medmitra-cases"]


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len({*cells}) == len(cells)
    assert {x for x, _ in cells} == {*range(24)}  # Grafana's columns


def test_promtool_accepts_the_files_and_each_alert_fires_when_it_should() -> None:
    run_command(
        tool("promtool"),
        "check",
        "config",
        "--lint=all",
        "--lint-fatal",
        DEPLOY / "prometheus/prometheus.yml",
    )
    run_command(tool("promtool"), "test", "rules", ROOT / "tests/deploy/alerts_test.yml")


def test_promtool_accepts_the_job_for_kubernetes(folder: Path) -> None:
    replacements = {"    # dns_sd_configs": "    dns_sd_configs", "    #   - {": "      - {"}
    text = with_replacements("prometheus/prometheus.yml", {"[alerts.yml]": "[]", **replacements})
    without_static = re.sub(r"    static_configs:\n.*\n", "", text)
    assert "dns_sd_configs:\n      - {" in without_static
    (folder / "prometheus.yml").write_text(without_static)
    run_command(tool("promtool"), "check", "config", folder / "prometheus.yml")


def test_each_alert_is_documented_and_has_a_unit_test() -> None:
    alerts = re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus/alerts.yml").read_text())
    rows = re.findall(r"^\| `(MedmitraCases\w+)` \|", (DOCS / "operations.md").read_text(), re.MULTILINE)
    tested = (ROOT / "tests/deploy/alerts_test.yml").read_text()
    assert rows == alerts
    assert [name for name in alerts if f"alertname: {name}\n" not in tested] == []
