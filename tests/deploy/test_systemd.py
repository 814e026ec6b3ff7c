"""The units of ``deploy/systemd/`` run under the real systemd, which boots in a container of namespaces."""

import http.client
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from medmitra_cases import __version__
from medmitra_cases.testing.postgres import open_folder
from tests.deploy.images import mounted_image
from tests.deploy.parts import DEPLOY, UnixConnection, child_pid, get, run_command
from tests.support.factories import CasesDatabase, case, in_json
from tests.support.key_server import KeyServer
from tests.support.processes import wait_until
from tests.support.programs import background
from tests.support.tokens import ASKED, EC_KEY, bearer, issued_by_key, jwk

pytestmark = pytest.mark.deploy

CORES = sorted(os.sched_getaffinity(0))[:2]
UNITS = [f"medmitra-cases@{core}.service" for core in CORES]
MAX_EXPOSURE = 15  # in tenths; without hardening it is 96

# Boots systemd as the first process of a container with the image's files. The container shares this
# machine's network, because it needs the database. It cannot change the kernel's settings.
BOOT = """
set -eu
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
for folder in run tmp dev; do mount -t tmpfs tmpfs $folder; done
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir -p old
pivot_root . old
umount -l old
exec env -i container=test PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --unit=basic.target
"""


@contextmanager
def own_cgroup() -> Iterator[Path]:
    """Make a cgroup below this process's cgroup; remove it and its subgroups after the block."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    hierarchy = next(Path(folder) for _, folder, kind, *_ in mounts if kind == "cgroup2")
    own_group = Path("/proc/self/cgroup").read_text().partition("0::/")[2].splitlines()[0]
    group = hierarchy / own_group / f"medmitra-cases-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        wait_until(lambda: "populated 0" in (group / "cgroup.events").read_text())
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


class Machine:
    """A container that systemd has booted."""

    def __init__(self, first_pid: int) -> None:
        self._pid = first_pid
        self.root = Path(f"/proc/{first_pid}/root")
        self.socket = self.root / "run" / "medmitra-cases" / "http.sock"

    def run(self, command: str) -> str:
        """Run a command in the container; return its output."""
        enter = ("nsenter", f"--target={self._pid}", "--mount", "--pid", "--uts", "--ipc", "--cgroup")
        return run_command(*enter, "--root", "--wd", "env", "-i", "bash", "-c", command)

    def is_up(self) -> bool:
        with suppress(AssertionError):
            return self.run("systemctl is-active basic.target") == "active"
        return False

    def get(self, target: str = ASKED, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        return get(UnixConnection(self.socket), target, **headers)

    def main_pid(self, unit: str) -> str:
        return self.run(f"systemctl show --property MainPID --value {unit}")


@pytest.fixture(scope="module")
def key_server() -> Iterator[KeyServer]:
    with closing(KeyServer()) as server:
        server.publish(jwk(EC_KEY, "key"))
        yield server


@pytest.fixture(scope="module")
def machine(image: str, pooled_dsn: str, key_server: KeyServer) -> Iterator[Machine]:
    """Yield a container that runs the units of ``deploy/systemd/``."""
    with mounted_image(image) as root, open_folder() as folder, own_cgroup() as group:
        for unit in (DEPLOY / "systemd").iterdir():
            shutil.copy(unit, root / "etc" / "systemd" / "system")
        variables = root / "etc" / "medmitra-cases.env"
        variables.write_text(f'DATABASE_URL="{pooled_dsn}"\nMEDMITRA_JWKS_URL={key_server.url}\n')
        variables.chmod(0o600)
        enter = ("sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec "$@"', group)
        boot = ("unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child")
        with background(
            *enter, *boot, "sh", "-c", BOOT, "sh", root, log=folder / "boot.log", stop_signal=signal.SIGKILL
        ) as process:
            machine = Machine(child_pid(process.pid))
            wait_until(machine.is_up)
            machine.run(f"systemctl enable --now medmitra-cases.socket {' '.join(UNITS)}")
            yield machine


@pytest.fixture
def token() -> dict[str, str]:
    return bearer(issued_by_key(EC_KEY, "key"))


def test_systemd_verifies_the_units(machine: Machine) -> None:
    assert machine.run(f"systemd-analyze verify --man=no medmitra-cases.socket {UNITS[0]}") == ""


def test_systemd_rates_the_exposure_of_a_unit_as_low(machine: Machine) -> None:
    machine.run(f"systemd-analyze security --offline=true --threshold={MAX_EXPOSURE} {UNITS[0]}")


def test_only_the_proxy_may_connect_to_the_socket(machine: Machine) -> None:
    permissions = machine.run("stat --format '%A %U %G' /run/medmitra-cases/http.sock")
    assert permissions == "srw-rw---- root www-data"


def test_the_sandboxed_service_serves_cases_and_writes_the_audit_log(
    machine: Machine, database: CasesDatabase, token: dict[str, str]
) -> None:
    stored = case()
    database.add(stored)
    response, body = machine.get(**token, **{"X-Forwarded-For": "192.0.2.7"})
    assert (response.status, json.loads(body)) == (200, {"cases": [in_json(stored)]})
    request_id = response.headers["X-Request-ID"]
    # The journal has the audit entry as the service wrote it.
    find_entry = f"journalctl --output=cat --unit='medmitra-cases@*' --grep={request_id} || true"
    wait_until(lambda: machine.run(find_entry).startswith("{"))
    assert json.loads(machine.run(find_entry))["client"] == "192.0.2.7"


@pytest.mark.parametrize("core", CORES)
def test_each_process_is_sandboxed_and_runs_on_its_core(machine: Machine, core: int) -> None:
    unit = f"medmitra-cases@{core}"
    lines = (machine.root / "proc" / machine.main_pid(unit) / "status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert "0" not in status["Uid"].split() + status["Gid"].split() + status["Groups"].split()
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Cpus_allowed_list"] == str(core)
    limits = (machine.root / "proc" / machine.main_pid(unit) / "limits").read_text()
    assert re.search("^Max core file size +0 +0 ", limits, re.MULTILINE)
    admin = http.client.HTTPConnection(f"127.0.1.{core}", 8001)
    assert get(admin, "/readyz")[0].status == 200
    # This metric is missing if the process cannot read its own folder in /proc.
    assert b"\nprocess_resident_memory_bytes " in get(admin, "/metrics")[1]


def test_restarts_of_the_units_in_turn_lose_no_request(machine: Machine, token: dict[str, str]) -> None:
    old_pids = [machine.main_pid(unit) for unit in UNITS]
    all_restarted = threading.Event()

    def send_requests() -> set[int]:
        statuses = set()
        while not all_restarted.is_set():
            statuses.add(machine.get(**token)[0].status)
        return statuses

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(send_requests) for _ in range(4)]
        try:
            for unit in UNITS:
                machine.run(f"systemctl restart {unit}")
        finally:
            all_restarted.set()
        assert [client.result() for client in clients] == [{200}] * 4
    assert not set(old_pids) & {machine.main_pid(unit) for unit in UNITS}


def test_a_rollback_changes_the_version_of_each_process(machine: Machine, token: dict[str, str]) -> None:
    machine.run(
        "cd /opt && mv medmitra-cases medmitra-cases-1.0.0 && cp -a medmitra-cases-1.0.0 medmitra-cases-1.1.0"
        " && sed -i 's/^__version__ = .*/__version__ = \"1.1.0\"/'"
        " medmitra-cases-1.1.0/lib/python3*/site-packages/medmitra_cases/contract.py"
        " && ln -s medmitra-cases-1.1.0 medmitra-cases"
    )

    def has_version(core: int, version: str) -> bool:
        with suppress(ConnectionRefusedError):  # the process is still importing
            metrics = get(http.client.HTTPConnection(f"127.0.1.{core}", 8001), "/metrics")[1]
            return f'medmitra_build_info{{version="{version}"}} 1'.encode() in metrics
        return False

    def restart(version: str) -> None:
        for core, unit in zip(CORES, UNITS, strict=True):
            machine.run(f"systemctl restart {unit}")
            assert machine.get(**token)[0].status == 200
            wait_until(partial(has_version, core, version))

    restart("1.1.0")
    machine.run("ln -sfn medmitra-cases-1.0.0 /opt/medmitra-cases")
    restart(__version__)


def test_systemd_restarts_a_killed_process(machine: Machine) -> None:
    unit = UNITS[0]
    old_pid = machine.main_pid(unit)
    machine.run(f"systemctl kill --signal=KILL {unit}")
    wait_until(lambda: machine.main_pid(unit) not in {old_pid, "0"})
