"""Says what was measured: the command, the date, the machine's cores and every version that matters."""

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version

from benchmarks.tools import FASTIFY

PYTHON_PACKAGES = (
    "flask",
    "waitress",
    "psycopg2-binary",
    "marshmallow",
    "msgspec",
    "fastapi",
    "uvicorn",
    "asyncpg",
    "pydantic",
)
NODE_PACKAGES = ("fastify", "pg")


def describe_run(command: str, postgres_version: str) -> str:
    """Describe this run.

    Args:
        command: The command that made it.
        postgres_version: The server's version.

    Returns:
        One paragraph of Markdown.
    """
    versions = {
        "Python": platform.python_version(),
        "Postgres": postgres_version,
        "node": _node_version(),
        **{name: version(name) for name in PYTHON_PACKAGES},
        **{name: _node_package_version(name) for name in NODE_PACKAGES},
    }
    today = datetime.now(timezone.utc).date().isoformat()
    return (
        f"`{command}`, {today}, {os.cpu_count()} cores, which the servers, Postgres and the load share. "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + "."
    )


def _node_version() -> str:
    return (
        subprocess.run(
            ["node", "--version"],  # noqa: S607, the node on the PATH is the one that runs
            capture_output=True,
            text=True,
            check=True,
        )
        .stdout.strip()
        .removeprefix("v")
    )


def _node_package_version(name: str) -> str:
    package = json.loads((FASTIFY / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
    return str(package["version"])
