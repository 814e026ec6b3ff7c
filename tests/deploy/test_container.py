"""The image of ``deploy/Containerfile``, run as runtimes do: no root, no capability, no place to write."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medmitra_cases.auth.tokens import mint_token
from tests.deploy.images import configuration, files_of
from tests.deploy.parts import child_of
from tests.support.factories import DOCTOR, CasesDatabase, case, in_json, settings
from tests.support.processes import Running, running

pytestmark = pytest.mark.deploy

SECRET = "test-secret-of-thirty-two-bytes-or-more"
UID = 10_001

# As the first process of its own: what a runtime does between unshare() and the image's program.
ENTER = """
set -eu
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
exec chroot "$root" setpriv --reuid=$ID --regid=$ID --clear-groups --bounding-set=-all --no-new-privs -- "$@"
"""


@contextmanager
def contained(image: str, **variables: str) -> Iterator[tuple[Running, Path]]:
    """Run the image; yields the service, and the folder in /proc of its first process."""
    said = configuration(image)
    user, group = said["User"].split(":")
    assert user == group == str(UID)
    given = [*said["Env"], *(f"{name}={value}" for name, value in variables.items())]
    with files_of(image) as root:
        command = ["sh", "-c", f"ID={UID}\n{ENTER}", "sh", root, "env", "-i", *given]
        command += [*said["Entrypoint"], *said["Cmd"]]
        with running("unshare", "--mount", "--pid", "--fork", "--kill-child", *command) as service:
            inside = child_of(service.process.pid)
            try:
                yield service, Path(f"/proc/{inside}")
            finally:
                if service.process.poll() is None:
                    os.kill(inside, signal.SIGKILL)  # unshare itself does not heed SIGTERM


def test_answers_and_ends_without_root_or_a_place_to_write(
    image: str, pooled: str, cases: CasesDatabase
) -> None:
    mine = case()
    cases.add(mine)
    configured = settings("dbname=postgres", MEDMITRA_JWT_SECRET=SECRET)
    with contained(
        image,
        DATABASE_URL=pooled,
        MEDMITRA_JWT_SECRET=SECRET,
        MEDMITRA_LISTEN="0.0.0.0:0",
        MEDMITRA_ADMIN_LISTEN="127.0.0.1:0",
    ) as (service, process):
        token = mint_token(configured, DOCTOR, minutes=1)
        response, body = service.get(f"/cases/all_cases?user_id={DOCTOR}", Authorization=f"Bearer {token}")
        assert (response.status, json.loads(body)) == (200, {"cases": [in_json(mine)]})
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(UID)}
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
        with pytest.raises(OSError, match="Read-only file system"):
            (process / "root" / "tmp" / "x").touch()
        assert status["NSpid"].split()[-1] == "1"  # to which a signal without a handler does nothing
        os.kill(int(process.name), signal.SIGTERM)
        assert service.wait_for_its_end() == 0


def test_without_tokens_it_does_not_listen(image: str) -> None:
    with (
        pytest.raises(AssertionError, match="other machines could connect"),
        contained(image, DATABASE_URL="host=127.0.0.1"),
    ):
        pass


def test_the_image_says_where_it_listens(image: str) -> None:
    said = configuration(image)
    assert {"MEDMITRA_LISTEN=0.0.0.0:8000", "MEDMITRA_ADMIN_LISTEN=0.0.0.0:8001"} <= set(said["Env"])
    assert set(said["ExposedPorts"]) == {"8000/tcp", "8001/tcp"}


def test_the_image_has_no_pip_and_nothing_of_the_user(image: str) -> None:
    with files_of(image) as root:
        ours = root / "opt" / "medmitra-cases"
        assert not list(ours.glob("**/site-packages/pip"))
        assert not (root / "build").exists()
        found = subprocess.run(
            ["find", root, "-xdev", "-uid", str(UID)], capture_output=True, text=True, check=True
        )
        assert found.stdout == ""
