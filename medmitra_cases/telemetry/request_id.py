"""The id of a request, which its response and its log lines carry."""

import re
import secrets
from contextvars import ContextVar

from medmitra_cases.telemetry.fork import call_after_fork

# The ids that the proxy may choose. Others are replaced, because the id goes into the log and the response.
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z", re.ASCII)

_current: ContextVar[str] = ContextVar("request_id", default="")


def start(header: str) -> None:
    """Set the id of the current request.

    Args:
        header: The ``X-Request-ID`` header of the request; empty if it has none.
    """
    _current.set(header if VALID_ID.match(header) else secrets.token_hex(8))


def current() -> str:
    """Return the id of the current request.

    Returns:
        The ``X-Request-ID`` from the proxy if ``VALID_ID`` matches it, else 16 random hexadecimal digits.
        Empty outside of requests.
    """
    return _current.get()


def _forget() -> None:
    _current.set("")


call_after_fork(_forget)  # a child does not log in the name of the parent's last request
