"""Lets other requests run while one waits for Postgres, if the server runs many on one thread.

psycopg2 has one callback for the process, which it calls instead of waiting, in every thread. While it is
set, libpq opens connections in another way, which ignores connect_timeout. So no login begins then.
"""

import select
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from psycopg2.extensions import POLL_OK, POLL_WRITE, set_wait_callback
from psycopg2.extensions import connection as PsycopgConnection

from medmitra_cases.telemetry import scheduler

T = TypeVar("T")

# The status of libpq's connection after the login.
_CONNECTION_OK = 0

# Held from when a thread sets the callback until psycopg2 calls it. A statement fails if it is gone by then.
_sending = threading.Lock()
# Whether a request has set it. Under other servers none does, and no thread needs the lock. A process that is
# forked while another thread holds it would never get it.
_is_used = False


class _LoginIgnoresTimeout(Exception):
    """A login has begun while the callback was set."""


def call_in_scheduler(method: Callable[..., T], *args: Any) -> T:
    """Call a method that waits for Postgres; in the scheduler of the current request, if that has one.

    Args:
        method: A method of psycopg2.
        *args: Its arguments.

    Returns:
        The result of the method.

    Raises:
        psycopg2.Error: The server failed or refused, or the connection is lost.
    """
    global _is_used
    _is_used = _is_used or scheduler.get() is not None
    if not _is_used:
        return method(*args)
    with _sending:
        set_wait_callback(_wait)
        return method(*args)


def log_in(connect: Callable[[], T]) -> T:
    """Open a connection in libpq's own way, with connect_timeout for each address.

    Args:
        connect: Opens the connection. Called again if another thread has set the callback just before it.

    Returns:
        The connection.

    Raises:
        psycopg2.OperationalError: The database cannot be reached, or refuses.
    """
    while True:
        if _is_used:
            with _sending:
                set_wait_callback(None)
        try:
            return connect()
        except _LoginIgnoresTimeout:
            continue


def _wait(connection: PsycopgConnection) -> None:
    if connection.info.status != _CONNECTION_OK:
        raise _LoginIgnoresTimeout
    _sending.release()  # other statements can be sent now
    current = scheduler.get()
    try:
        while (state := connection.poll()) != POLL_OK:
            if current is not None:
                current.wait_for_descriptor(connection.fileno(), is_write=state == POLL_WRITE)
            else:  # psycopg2 calls it in every thread
                poll = select.poll()
                poll.register(connection.fileno(), select.POLLOUT if state == POLL_WRITE else select.POLLIN)
                poll.poll()
    finally:
        _sending.acquire()
        set_wait_callback(_wait)  # psycopg2 sends BEGIN before some statements
