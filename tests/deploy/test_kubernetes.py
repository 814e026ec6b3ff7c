"""``deploy/kubernetes/`` without a cluster: its schemas, its container, the probes and the preStop hook."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from medmitra_cases import __version__
from medmitra_cases.auth.tokens import mint_token
from tests.deploy.images import image_config, run_image
from tests.deploy.parts import DEPLOY, run_command
from tests.support.factories import DOCTOR, CasesDatabase, settings
from tests.support.load import load
from tests.support.processes import COMMAND, TIMEOUT_SECONDS, Running, stalled, wait_until
from tests.support.programs import free_port
from tests.support.tokens import ASKED, SECRET, bearer

pytestmark = pytest.mark.deploy

OLDEST_VERSION, NEWEST_VERSION = "1.27", "1.37"
TEXT = (DEPLOY / "kubernetes/medmitra-cases.yaml").read_text()
OBJECTS: dict[tuple[str, str], Any] = {
    (found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(TEXT)
}
DEPLOYMENT = OBJECTS["Deployment", "medmitra-cases"]["spec"]
POD = DEPLOYMENT["template"]["spec"]
(CONTAINER,) = POD["containers"]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
OTHER_DOCTOR = DOCTOR[:-1] + "5"


@contextmanager
def run_pod(image: str, dsn: str) -> Iterator[tuple[Running, Path]]:
    """Run the container with its variables and secrets, on free ports; yield it and its folder in /proc."""
    secrets = {"database_url": dsn, "jwt_secret": SECRET}
    assert set(re.findall(r"--from-file=(\S+)", TEXT)) == {*secrets}
    (volume,), (mount,) = POD["volumes"], CONTAINER["volumeMounts"]
    assert volume["name"] == mount["name"]
    assert f"create secret generic {volume['secret']['secretName']} --from-file=" in TEXT
    files = {f"{mount['mountPath']}/{name}": text for name, text in secrets.items()}
    variables = {
        **{variable["name"]: variable["value"] for variable in CONTAINER["env"]},
        "MEDMITRA_LISTEN": "127.0.0.1:0",
        "MEDMITRA_ADMIN_LISTEN": "127.0.0.1:0",
    }
    assert not {"command", "args", "envFrom"} & {*CONTAINER}  # the image has the command
    with run_image(image, files, **variables) as running:
        yield running


def probe(service: Running, name: str) -> bool:
    """Send the probe as Kubernetes does; return whether it succeeds."""
    request = CONTAINER[name]["httpGet"]
    assert request["port"] == "admin"
    url = f"http://127.0.0.1:{service.admin_port}{request['path']}"
    return requests.get(url, timeout=CONTAINER[name]["timeoutSeconds"]).ok


def token(doctor: str) -> str:
    return mint_token(settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET), doctor, minutes=5)


@pytest.mark.parametrize("version", [OLDEST_VERSION, NEWEST_VERSION])
def test_kubernetes_knows_every_field(version: str) -> None:
    assert f"Kubernetes {OLDEST_VERSION} or newer" in TEXT
    validate = COMMAND.with_name("kubernetes-validate")
    output = run_command(validate, "--strict", "-k", version, DEPLOY / "kubernetes/medmitra-cases.yaml")
    assert output.count("INFO ") == len(OBJECTS)


def test_every_selector_selects_the_pods_and_every_port_is_one_of_the_container() -> None:
    labels = DEPLOYMENT["template"]["metadata"]["labels"]
    http, admin = (
        OBJECTS["Service", "medmitra-cases"]["spec"],
        OBJECTS["Service", "medmitra-cases-admin"]["spec"],
    )
    policy = OBJECTS["NetworkPolicy", "medmitra-cases"]["spec"]
    budget = OBJECTS["PodDisruptionBudget", "medmitra-cases"]["spec"]
    for selector in (DEPLOYMENT["selector"], policy["podSelector"], budget["selector"]):
        assert selector == {"matchLabels": labels}
    assert http["selector"] == admin["selector"] == labels
    assert [port["targetPort"] for port in http["ports"] + admin["ports"]] == ["http", "admin"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["http", "admin"]
    assert {*PORTS} == {"http", "admin"}
    scrape = (DEPLOY / "prometheus/prometheus.yml").read_text()
    assert (
        f"names: [medmitra-cases-admin.medmitra.svc.cluster.local], type: A, port: {PORTS['admin']}" in scrape
    )
    assert admin["ports"][0]["port"] == PORTS["admin"]


def test_the_ports_are_those_of_the_image_and_the_tag_is_the_version(image: str) -> None:
    listening = {
        f"MEDMITRA_LISTEN=0.0.0.0:{PORTS['http']}",
        f"MEDMITRA_ADMIN_LISTEN=0.0.0.0:{PORTS['admin']}",
    }
    assert listening <= set(image_config(image)["Env"])
    assert CONTAINER["image"].endswith(f"/medmitra-cases:{__version__}")


def test_a_pod_without_a_database_lives_but_is_not_ready(image: str) -> None:
    with run_pod(image, f"host=127.0.0.1 port={free_port()} user=medmitra_cases") as (service, process):
        assert probe(service, "livenessProbe")
        assert not probe(service, "readinessProbe")
        os.kill(int(process.name), signal.SIGTERM)
        assert service.wait_for_its_end() == 0


def test_a_pod_that_stops_fails_no_request_and_ends_within_its_grace_period(
    image: str, pooled_dsn: str, database: CasesDatabase
) -> None:
    database.add_many([DOCTOR], 50)
    database.add_many([OTHER_DOCTOR], 40_000)
    request = f"GET {ASKED.replace(DOCTOR, OTHER_DOCTOR)} HTTP/1.1\r\nHost: x\r\n{{}}: {{}}\r\n\r\n"
    (authorization,) = bearer(token(OTHER_DOCTOR)).items()
    with run_pod(image, pooled_dsn) as (service, process):
        wait_until(lambda: probe(service, "readinessProbe"))
        assert probe(service, "livenessProbe")

        def connect() -> HTTPConnection:
            return HTTPConnection("127.0.0.1", service.port, timeout=TIMEOUT_SECONDS)

        with stalled(service, request.format(*authorization).encode()):
            with load(connect, ASKED, headers=bearer(token(DOCTOR))) as clients:
                clients.wait_for(100)
                stopped_at = time.monotonic()
                run_command("chroot", process / "root", *CONTAINER["lifecycle"]["preStop"]["exec"]["command"])
                clients.wait_for(100)
            assert clients.failed == []
            os.kill(int(process.name), signal.SIGTERM)
            wait_until(lambda: not probe(service, "readinessProbe"))
            assert probe(service, "livenessProbe")  # Kubernetes must not kill a process that drains
            assert service.wait_for_its_end() == 1  # the client that reads nothing was cut off
        assert time.monotonic() - stopped_at < POD["terminationGracePeriodSeconds"]
    assert "clients cut off before their responses were complete: 1" in service.printed
    assert "is not a setting" not in service.printed
