"""The keys that verify tokens, fetched from the URL at which the issuer publishes them (JWKS)."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import jwt

from medmitra_cases.auth.key_set import KeySet, fetch_keys
from medmitra_cases.errors import KeysUnavailable
from medmitra_cases.telemetry import call_after_fork, call_blocking

_log = logging.getLogger(__name__)

# Seconds that the key server may stay silent, and that a request waits for it.
FETCH_SECONDS = 2.0
# Seconds after which a fetch is given up and the next may begin.
DEADLINE_SECONDS = 10.0
# Seconds after which keys are fetched again, so that a revoked key stops being valid.
REFRESH_SECONDS = 600.0
# The minimum of seconds between two fetches, however many requests name unknown keys.
REFETCH_SECONDS = 5.0
# Seconds that keys stay valid while no newer ones can be fetched: one day.
STALE_SECONDS = 86_400.0


def download_keys(url: str) -> KeySet:
    """Fetch the keys now.

    Args:
        url: The URL of the JWK set.

    Returns:
        The keys.

    Raises:
        Exception: The URL cannot be read within ``DEADLINE_SECONDS``, or returns no JWK set. Any type.
    """
    return fetch_keys(url, silence_seconds=FETCH_SECONDS, total_seconds=DEADLINE_SECONDS)


class JwksClient:
    """The keys of a JWK set (RFC 7517, 5) for ES256 and RS256, by their ids.

    A separate thread fetches them, so that no slow key server or name server holds a request for longer than
    ``FETCH_SECONDS``.
    """

    def __init__(self, url: str) -> None:
        """Keep the URL; nothing is fetched before a key is needed.

        Args:
            url: The URL of the JWK set.
        """
        self._url = url
        self._keys: Mapping[str, Sequence[jwt.PyJWK]] = {}
        self._fetched_at = float("-inf")  # in seconds of the monotonic clock
        self._last_fetch_succeeded = False
        self._reset()
        call_after_fork(self._reset)

    def _reset(self) -> None:
        # The keys stay after a fork. A fetch that was running does not.
        self._started_at = float("-inf")
        self._start_lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    def find(self, key_id: str, algorithm: object) -> Sequence[jwt.PyJWK]:
        """Look up the keys of an id, and fetch them if none of them is for the algorithm.

        Args:
            key_id: The id. Keys of different types may share it (RFC 7517, 4.5).
            algorithm: The algorithm that a key is needed for.

        Returns:
            The keys, each bound to one algorithm: those for this one; if there are none, the others.

        Raises:
            KeysUnavailable: The keys cannot be fetched, and the id is not known.
        """
        keys, are_known = self._cached(key_id, algorithm, REFRESH_SECONDS)
        if not are_known:
            self._fetch_if_due()
            keys, are_known = self._cached(key_id, algorithm, STALE_SECONDS)
            # A stale key may have been revoked. During a known outage the request does not wait.
            if not are_known or self._last_fetch_succeeded:
                call_blocking(self._idle.wait, self._started_at + FETCH_SECONDS - time.monotonic())
                keys, _ = self._cached(key_id, algorithm, STALE_SECONDS)
        if not keys and not (self._last_fetch_succeeded and self._idle.is_set()):
            raise KeysUnavailable
        return keys

    def _cached(self, key_id: str, algorithm: object, max_age: float) -> tuple[Sequence[jwt.PyJWK], bool]:
        if time.monotonic() - self._fetched_at >= max_age:
            return (), False
        keys = self._keys.get(key_id, ())
        matching = [key for key in keys if key.algorithm_name == algorithm]
        return matching or keys, bool(matching)

    def _fetch_if_due(self) -> None:
        with self._start_lock:
            now = time.monotonic()
            seconds = now - self._started_at
            if not self._idle.is_set() and seconds >= DEADLINE_SECONDS:
                # It waits for a name server, which has no timeout of ours. Its thread ends with that.
                self._end_fetch(None, "the fetch did not end in time")
            if self._idle.is_set() and seconds >= REFETCH_SECONDS:
                self._idle.clear()
                fetch = threading.Thread(target=self._fetch, args=(now,), name="signing-keys", daemon=True)
                try:
                    fetch.start()
                    self._started_at = now
                except RuntimeError as error:  # too many threads at the moment; the next request tries again
                    self._end_fetch(None, str(error))

    def _fetch(self, started_at: float) -> None:
        found, error = None, ""
        try:
            found = download_keys(self._url)
        except Exception as raised:  # after any error the present keys stay valid
            error = str(raised)
        with self._start_lock:
            if started_at == self._started_at and not self._idle.is_set():  # it was not given up
                self._end_fetch(found, error)

    def _end_fetch(self, found: KeySet | None, error: str) -> None:
        if found is None:
            _log.warning("no keys from MEDMITRA_JWKS_URL: %s", error)
        else:
            if not found.keys:
                _log.warning("MEDMITRA_JWKS_URL has no key for ES256 or RS256, so no token is valid")
            keys = defaultdict(list)
            for key in found.keys:
                keys[str(key.key_id)].append(key)
            self._keys = dict(keys)
            self._fetched_at = time.monotonic()
        self._last_fetch_succeeded = found is not None
        self._idle.set()
