"""Builds the image of ``deploy/Containerfile`` on a Debian made here, and hands out its files."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deploy.parts import DEPLOY, call
from tests.support.paths import ROOT

# The Debian takes a minute to make, so it is kept here, outside the checkout.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "/var/tmp") / "medmitra-cases-deploy"
SUITE = "bookworm"
PYTHON = "3.11"  # what that suite has
BASE = f"localhost/medmitra-base-{SUITE}"
IMAGE = "localhost/medmitra-cases"


def buildah(*arguments: str | Path) -> str:
    """Run it on a store of our own."""
    return call("buildah", "--root", CACHE / "store", "--runroot", "/run/medmitra-cases-deploy", *arguments)


def built(folder: Path) -> str:
    """Build the image from the checkout as it is.

    Args:
        folder: An empty folder.

    Returns:
        Its name.
    """
    CACHE.mkdir(exist_ok=True, parents=True)
    if BASE not in buildah("images", "--format", "{{.Name}}").splitlines():
        _make_base(folder / "base")
    context, wheels = folder / "context", folder / "wheels"
    (context / "requirements").mkdir(parents=True)
    shutil.copy(ROOT / "requirements" / "service.txt", context / "requirements")
    _make_wheel(folder / "source", context / "dist")
    # Fetched here, where pip knows from where and through what; the build itself needs no network.
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download")
    locked = ("--require-hashes", "--requirement", context / "requirements" / "service.txt")
    call(*pip, *locked, "--only-binary", ":all:", "--python-version", PYTHON, "--dest", wheels)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    buildah(
        *("build", "--quiet", "--build-arg", f"BASE={BASE}", "--tag", IMAGE),
        *("--volume", f"{wheels}:/wheels:ro", "--volume", f"{folder}/pip.conf:/etc/pip.conf:ro"),
        *("--file", DEPLOY / "Containerfile", context),
    )
    buildah("rmi", "--prune")  # the image of the time before
    return IMAGE


def _make_base(folder: Path) -> None:
    """Make a small Debian: with Python for the image, and with systemd, so that it can be booted, too."""
    include = "--include=python3,python3-venv,systemd"
    call("debootstrap", "--variant=minbase", include, SUITE, folder, _mirror())
    with _working_container("scratch") as container:
        buildah("add", "--quiet", container, folder, "/")
        buildah("commit", "--quiet", container, BASE)


def _mirror() -> str:
    """The Debian mirror that this machine uses, or else Debian's own."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in sources if path.exists())
    found = re.search(r"^(?:deb |URIs:).*?(https?://\S+/debian/?)(?:\s|$)", text, re.MULTILINE)
    return found[1] if found else "http://deb.debian.org/debian"


def _make_wheel(source: Path, target: Path) -> None:
    """Build in a copy: others may be at work in the checkout."""
    for name in ("medmitra_cases", "sql"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel")
    call(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", target, source)


@contextmanager
def _working_container(image: str) -> Iterator[str]:
    container = buildah("from", image)
    try:
        yield container
    finally:
        buildah("rm", container)


@contextmanager
def files_of(image: str) -> Iterator[Path]:
    """The image's files, to be changed at will until the end of the block."""
    with _working_container(image) as container:
        yield Path(buildah("mount", container))


def configuration(image: str) -> dict[str, Any]:
    """What the image says of how it is run."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    return found
