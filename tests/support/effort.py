"""Counts the function calls of a request: unlike time, the same on every machine and under any load."""

import sys
from typing import Any

from flask import Flask
from werkzeug.test import EnvironBuilder


def calls(app: Flask, path: str, query: str = "", method: str = "GET", **headers: str) -> tuple[int, int]:
    """Send a request to the application; return the status and the number of functions that it called."""
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    environ = EnvironBuilder(path, query_string=query, method=method, headers=fields).get_environ()
    count = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    def start_response(status: str, _headers: Any, _error: Any = None) -> Any:
        statuses.append(int(status[:3]))

    statuses: list[int] = []
    sys.setprofile(profile)
    try:
        body = app(environ, start_response)
    finally:
        sys.setprofile(None)
    b"".join(body)
    return statuses[0], count
