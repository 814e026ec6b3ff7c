"""Builds the image of ``deploy/Containerfile`` on a Debian base image, mounts it, and runs it."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.deploy.parts import DEPLOY, child_pid, run_command
from tests.support.paths import ROOT
from tests.support.processes import Running, running

# The base image takes a minute to build, so it stays here, outside the checkout.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "/var/tmp") / "medmitra-cases-deploy"
SUITE = "bookworm"
PYTHON = "3.11"  # the version in that suite
BASE = f"localhost/medmitra-base-{SUITE}"
IMAGE = "localhost/medmitra-cases"
UID = 10_001

# A container runtime does the same between unshare() and the start of the image's program.
ENTER = """
set -eu
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
exec chroot "$root" setpriv --reuid=$ID --regid=$ID --clear-groups --bounding-set=-all --no-new-privs -- "$@"
"""


def buildah(*arguments: str | Path) -> str:
    """Run buildah with a separate image store; return its output."""
    store = ("--root", CACHE / "store", "--runroot", "/run/medmitra-cases-deploy")
    return run_command("buildah", *store, *arguments)


def build_image(folder: Path) -> str:
    """Build the image from the files of the checkout.

    Args:
        folder: An empty folder.

    Returns:
        The image's name.
    """
    CACHE.mkdir(exist_ok=True, parents=True)
    if BASE not in buildah("images", "--format", "{{.Name}}").splitlines():
        _make_base(folder / "base")
    context, wheels = folder / "context", folder / "wheels"
    (context / "requirements").mkdir(parents=True)
    shutil.copy(ROOT / "requirements" / "service.txt", context / "requirements")
    _make_wheel(folder / "source", context / "dist")
    # pip downloads the wheels here, with this machine's index and proxy. The build needs no network.
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download")
    locked = ("--require-hashes", "--requirement", context / "requirements" / "service.txt")
    run_command(*pip, *locked, "--only-binary", ":all:", "--python-version", PYTHON, "--dest", wheels)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    buildah(
        *("build", "--quiet", "--build-arg", f"BASE={BASE}", "--tag", IMAGE),
        *("--volume", f"{wheels}:/wheels:ro", "--volume", f"{folder}/pip.conf:/etc/pip.conf:ro"),
        *("--file", DEPLOY / "Containerfile", context),
    )
    buildah("rmi", "--prune")  # the image of the previous build
    return IMAGE


def _make_base(folder: Path) -> None:
    """Make a small Debian with Python for the image, and with systemd to boot it in tests."""
    packages = "--include=python3,python3-venv,systemd"
    run_command("debootstrap", "--variant=minbase", packages, SUITE, folder, _mirror())
    with _working_container("scratch") as container:
        buildah("add", "--quiet", container, folder, "/")
        buildah("commit", "--quiet", container, BASE)


def _mirror() -> str:
    """Return the Debian mirror that this machine uses, or deb.debian.org."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in sources if path.exists())
    found = re.search(r"^(?:deb |URIs:).*?(https?://\S+/debian/?)(?:\s|$)", text, re.MULTILINE)
    return found[1] if found else "http://deb.debian.org/debian"


def _make_wheel(source: Path, target: Path) -> None:
    """Build the wheel in a copy, because other builds may use the checkout at the same time."""
    for name in ("medmitra_cases", "sql"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel")
    run_command(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", target, source)


@contextmanager
def _working_container(image: str) -> Iterator[str]:
    container = buildah("from", image)
    try:
        yield container
    finally:
        buildah("rm", container)


@contextmanager
def mounted_image(image: str) -> Iterator[Path]:
    """Mount a writable copy of the image until the block ends; yield its root folder."""
    with _working_container(image) as container:
        yield Path(buildah("mount", container))


def image_config(image: str) -> dict[str, Any]:
    """Return the image's configuration: its user, environment, command and ports."""
    config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    return config


@contextmanager
def run_image(
    image: str, files: Mapping[str, str] = MappingProxyType({}), **variables: str
) -> Iterator[tuple[Running, Path]]:
    """Run the image; yield the service, and the folder in /proc of its first process.

    Args:
        image: The image's name.
        files: Files of root that all users may read, by their paths in the container.
        variables: Environment variables in addition to those of the image.
    """
    config = image_config(image)
    user, group = config["User"].split(":")
    assert user == group == str(UID)
    environment = [*config["Env"], *(f"{name}={value}" for name, value in variables.items())]
    with mounted_image(image) as root:
        for path, text in files.items():
            inside = root / path.lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.write_text(text)
        command = ["sh", "-c", f"ID={UID}\n{ENTER}", "sh", root, "env", "-i", *environment]
        command += [*config["Entrypoint"], *config["Cmd"]]
        with running("unshare", "--mount", "--pid", "--fork", "--kill-child", *command) as service:
            pid = child_pid(service.process.pid)
            try:
                yield service, Path(f"/proc/{pid}")
            finally:
                if service.process.poll() is None:
                    os.kill(pid, signal.SIGKILL)  # unshare ignores SIGTERM
