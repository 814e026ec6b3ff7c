"""The programs that are not Python packages: wrk, and node with the packages of the Fastify peer."""

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.errors import BenchmarkError

FASTIFY = Path(__file__).parent / "peers" / "fastify"


def provide_tools() -> None:
    """See that wrk and node are there, and install the packages of the Fastify peer.

    Raises:
        BenchmarkError: One is missing and cannot be installed.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise BenchmarkError("the peer Fastify needs node and npm on the PATH: https://nodejs.org")
    if shutil.which("taskset") is None:
        raise BenchmarkError("the service is bound to a core by taskset, of the package util-linux")
    if shutil.which("wrk") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise BenchmarkError(
                "the load comes from wrk: install it, such as with: sudo apt-get install wrk"
            )
        _run("apt-get", "install", "--yes", "wrk")
    _run("npm", "ci", "--loglevel=error", "--prefix", str(FASTIFY))


def _run(*command: str) -> None:
    done = subprocess.run(  # noqa: S603, the commands are ours
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed: {' / '.join(done.stdout.splitlines()[-4:])}")
