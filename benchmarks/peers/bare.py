"""The limit: the same waitress, and psycopg2 as it comes, with neither Flask nor marshmallow between them.

Answers with arrays instead of objects, checks nothing and survives nothing.
"""

import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import orjson
import psycopg2
from psycopg2.extensions import connection as Connection

from medmitra_cases.dao.statements import SELECT_CASES
from medmitra_cases.server.server import Server
from medmitra_cases.server.sockets import bound_sockets
from medmitra_cases.settings.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SETTINGS = Settings.from_environ(os.environ)


class _ThreadState(threading.local):
    connection: Connection | None = None


_thread = _ThreadState()


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Answer with all rows of one doctor, as they come.

    Args:
        environ: WSGI's.
        start_response: WSGI's.

    Returns:
        The body.
    """
    if _thread.connection is None:
        _thread.connection = psycopg2.connect(SETTINGS.database_url)
        _thread.connection.autocommit = True
    (user_id,) = parse_qs(environ["QUERY_STRING"])["user_id"]
    with _thread.connection.cursor() as cursor:
        # The service's own query, without the rows' versions: it sends no entity tag.
        cursor.execute(SELECT_CASES, {"user_id": user_id, "limit": None, "row_version": None})
        body = orjson.dumps(cursor.fetchall())
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    sockets = bound_sockets(SETTINGS.listen, reuse_port=False)
    Server(application, SETTINGS, sockets, shared=False, route_of=lambda path: path).run(print)
