"""The limit: the service's own waitress server, and psycopg2 without Flask and marshmallow.

It sends arrays instead of objects, checks no input and handles no errors.
"""

import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import orjson

from medmitra_cases.dao.statements import SELECT_CASES
from medmitra_cases.database import Connection, connect
from medmitra_cases.server.server import Server
from medmitra_cases.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SETTINGS = Settings.from_environ(os.environ)

_idle: list[Connection] = []


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Send all rows of one doctor, as psycopg2 returns them."""
    (user_id,) = parse_qs(environ["QUERY_STRING"])["user_id"]
    connection = _connection()
    with connection.cursor() as cursor:
        # The SELECT of the service, without the rows' versions, because there is no ETag.
        unlimited = dict.fromkeys(["limit", "row_version", "max_summary_bytes", "max_other_bytes"])
        cursor.execute(SELECT_CASES, {"user_id": user_id, **unlimited})
        body = orjson.dumps(cursor.fetchall())
    _idle.append(connection)
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _connection() -> Connection:
    try:
        return _idle.pop()
    except IndexError:
        return connect(SETTINGS.database_url)


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=1024)
    Server(application, SETTINGS, [listener], shared=False, route_of=lambda path: path).run(print)
