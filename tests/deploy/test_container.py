"""The image of ``deploy/Containerfile`` runs without root, capabilities and writable folders."""

import json
import os
import signal

import pytest

from medmitra_cases.auth.tokens import mint_token
from tests.deploy.images import UID, image_config, mounted_image, run_image
from tests.deploy.parts import run_command
from tests.support.factories import DOCTOR, CasesDatabase, case, in_json, settings
from tests.support.tokens import SECRET

pytestmark = pytest.mark.deploy


def test_the_image_serves_cases_and_stops_without_root_or_writable_folders(
    image: str, pooled_dsn: str, database: CasesDatabase
) -> None:
    stored = case()
    database.add(stored)
    token_settings = settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)
    with run_image(
        image,
        DATABASE_URL=pooled_dsn,
        MEDMITRA_JWT_SECRET=SECRET,
        MEDMITRA_LISTEN="0.0.0.0:0",
        MEDMITRA_ADMIN_LISTEN="127.0.0.1:0",
    ) as (service, process):
        token = mint_token(token_settings, DOCTOR, minutes=1)
        response, body = service.get(f"/cases/all_cases?user_id={DOCTOR}", Authorization=f"Bearer {token}")
        assert (response.status, json.loads(body)) == (200, {"cases": [in_json(stored)]})
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(UID)}
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
        with pytest.raises(OSError, match="Read-only file system"):
            (process / "root" / "tmp" / "x").touch()
        assert status["NSpid"].split()[-1] == "1"  # pid 1 ignores every signal that it has no handler for
        os.kill(int(process.name), signal.SIGTERM)
        assert service.wait_for_its_end() == 0


def test_the_image_does_not_listen_without_token_settings(image: str) -> None:
    with (
        pytest.raises(AssertionError, match="other machines could connect"),
        run_image(image, DATABASE_URL="host=127.0.0.1"),
    ):
        pass


def test_the_image_declares_its_addresses_and_ports(image: str) -> None:
    config = image_config(image)
    assert {"MEDMITRA_LISTEN=0.0.0.0:8000", "MEDMITRA_ADMIN_LISTEN=0.0.0.0:8001"} <= set(config["Env"])
    assert set(config["ExposedPorts"]) == {"8000/tcp", "8001/tcp"}


def test_the_image_has_no_pip_and_no_file_of_the_service_user(image: str) -> None:
    with mounted_image(image) as root:
        installed = root / "opt" / "medmitra-cases"
        assert not list(installed.glob("**/site-packages/pip"))
        assert not (root / "build").exists()
        assert run_command("find", root, "-xdev", "-uid", str(UID)) == ""
