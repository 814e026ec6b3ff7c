"""The id that ties an answer to its lines in the log."""

import re
import secrets
from contextvars import ContextVar

# What the proxy may choose. The id is written to the log and the answer, so nothing else gets through.
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z", re.ASCII)

_current: ContextVar[str] = ContextVar("request_id", default="")


def start(sent: str) -> None:
    """Begin a request, in the thread that answers it.

    Args:
        sent: The ``X-Request-ID`` that the proxy sent, or nothing.
    """
    _current.set(sent if VALID_ID.match(sent) else secrets.token_hex(8))


def current() -> str:
    """Name the current request.

    Returns:
        The ``X-Request-ID`` the proxy sent if it is sane, else 16 random hexadecimal digits; nothing in a
        thread that answers no request.
    """
    return _current.get()
