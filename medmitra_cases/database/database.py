"""Runs reads on the connections of a pool, and repeats those that got no response."""

import math
import time
from collections.abc import Callable
from copy import copy
from typing import Concatenate, ParamSpec, TypeVar

import psycopg2

from medmitra_cases.database.connection import Connection
from medmitra_cases.database.pool import Pool
from medmitra_cases.database.translate import has_conflict, timed_out, translated
from medmitra_cases.telemetry import metrics

P = ParamSpec("P")
T = TypeVar("T")

# How often a read is repeated after its connection was lost: its statement may itself have ended the server's
# process.
MAX_LOSSES = 1
# How often a read is repeated after a conflict (SQLSTATE class 40), as a standby has them with its primary.
MAX_CONFLICTS = 3


class Database:
    """Runs reads, each on a connection that no other read uses at the same time."""

    def __init__(
        self, url: str, *, wait_seconds: float, max_connections: int = 9, max_age_seconds: float = 1800
    ) -> None:
        """Keep the parameters, without connecting.

        Args:
            url: A libpq URI or a ``key=value`` string.
            wait_seconds: The time during which a request waits for a connection, and repeats its read.
            max_connections: The maximum number of connections.
            max_age_seconds: The age at which a connection is replaced at the latest.
        """
        self._pool = Pool(url, max_connections=max_connections, max_age_seconds=max_age_seconds)
        self._wait_seconds = wait_seconds
        self._first = False

    def for_readiness(self, *, wait_seconds: float) -> "Database":
        """Return the same database for the check of readiness, which waits for no request.

        Args:
            wait_seconds: The time during which the check waits for a connection, and repeats its read.

        Returns:
            A database with the same pool.
        """
        other = copy(self)
        other._wait_seconds, other._first = wait_seconds, True
        return other

    def read(
        self,
        since: float,
        query: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read, and repeat it if it got no response. Not for writes, which could run twice.

        Args:
            since: When the request arrived, in seconds of the monotonic clock; the wait starts there.
            query: A function that reads with the connection it is given. If it leaves a transaction open, its
                result keeps the connection, and gives it back.
            *args: Further arguments of the function.
            **kwargs: Further arguments of the function.

        Returns:
            The result of the function.

        Raises:
            DataRefused: The database's encoding lacks a character of the query; the connection stays open.
            QueryTimedOut: The server cancelled the query, or did not cancel it in time. There is no retry.
            DatabaseUnavailable: There was no connection within ``wait_seconds``, or it was lost again.
            DatabaseError: Any other error of the database.
        """
        deadline = since + self._wait_seconds
        losses = conflicts = 0
        lost_at = -math.inf
        while True:
            connection = self._pool.acquire(deadline, opened_after=lost_at, first=self._first)
            keep = False
            try:
                result = query(connection, *args, **kwargs)
                keep = connection.is_in_transaction  # the result will give it back
                return result
            except psycopg2.Error as error:
                now = time.monotonic()
                if connection.closed:
                    lost_at, losses = now, losses + 1
                    repeat = losses <= MAX_LOSSES
                else:
                    conflicts += 1
                    repeat = has_conflict(error) and conflicts <= MAX_CONFLICTS
                if timed_out(error, connection) or not repeat or now > deadline:
                    raise translated(error, connection) from error
            finally:
                if not keep:
                    self._pool.release(connection)
            metrics.DATABASE_RETRIES.inc()

    def close(self) -> None:
        """Close the connections on which no statement runs. A later read opens a new one."""
        self._pool.close()
