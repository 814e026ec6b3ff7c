"""The id that ties an answer to its lines in the log."""

import re
import secrets

from flask import g, request

# What the proxy may choose. The id is written to the log and the answer, so nothing else gets through.
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}\Z", re.ASCII)


def request_id() -> str:
    """Name the current request.

    Returns:
        The ``X-Request-ID`` the proxy sent if it is sane, else 16 random hexadecimal digits; the same at
        every call during one request.
    """
    name: str | None = g.get("request_id")
    if name is None:
        sent = request.environ.get("HTTP_X_REQUEST_ID", "")
        name = g.request_id = sent if _SANE.match(sent) else secrets.token_hex(8)
    return name
