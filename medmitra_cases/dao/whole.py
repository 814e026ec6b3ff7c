"""Reads a list that is held in memory as a whole."""

from functools import reduce
from itertools import islice
from operator import itemgetter, xor
from typing import Any

from marshmallow import fields
from psycopg2.extensions import cursor as Cursor

from medmitra_cases.dao.definition import resolve
from medmitra_cases.dao.fetch import fetch_version, types_of
from medmitra_cases.dao.statements import LEFT_OUT, BoundQuery
from medmitra_cases.dao.transactions import transaction
from medmitra_cases.database import Connection
from medmitra_cases.models import CaseQuery, Cases, PageInfo, Version
from medmitra_cases.schemas import CaseSchema

# The maximum size of the summaries of a list that is held as a whole, in bytes. Others are read in batches.
WHOLE_BYTES = 2 << 20
# The maximum size of a summary in the first statement, and of all together, in bytes: libpq holds the result.
TEXT_BYTES = 8 << 10
RESULT_BYTES = 16 << 20
# Rows that become Python objects before their size is checked.
_ROWS = 128

# The size for the first statement of queries with few large cases, which otherwise need a second each time.
_text_bytes: dict[CaseQuery, int] = {}
MAX_QUERIES = 1_000

# A row has the keys of a case in order, its version and, on a page, the first four fields of PageInfo.
_KEYS = CaseSchema().dump_fields
_SUMMARY = itemgetter(list(_KEYS).index("case_summary"))
_TEXTS = [
    itemgetter(number)
    for number, (name, field) in enumerate(_KEYS.items())
    if type(field) is fields.String and name not in {"case_id", "user_id"}
]
_ROW_VERSION = itemgetter(len(_KEYS))
_PAGE_INFO = slice(len(_KEYS) + 1, len(_KEYS) + 5)


def fetch_cases(connection: Connection, bound: BoundQuery, max_rows: int) -> tuple[Cases, Version] | None:
    """Fetch the cases of a query, unless they are too many or too large.

    Args:
        connection: An open connection in autocommit mode.
        bound: The query.
        max_rows: The maximum number of cases; no page has more.

    Returns:
        The cases in the requested order, and their version of the same moment; no cases for an unknown
        doctor. None if there are more than ``max_rows``, or if they are too large to be held as a whole.

    Raises:
        UnknownCursor: The doctor has no case ``after``.
        psycopg2.Error: The database failed or refused the query.
    """
    query = bound.query
    # First, so that a definition that changes meanwhile goes with rows that are too new, never too old.
    bound, definition = resolve(connection, bound)
    cases = _fetch(connection, bound, max_rows)
    if cases is None:
        return None
    rows = cases.rows
    page_info = None
    if rows and query.is_page:
        total, has_next, has_previous, previous_after = rows[0][_PAGE_INFO]
        next_after = rows[-1][0] if query.sort_by is None and len(rows) == query.limit else None
        page_info = PageInfo(total, has_next, has_previous, previous_after, len(rows), next_after)
    elif query.is_page or (query.after is not None and not rows):
        # Without a row nothing tells the total, or whether the cursor case exists.
        page_info = fetch_version(connection, bound).page_info
        if page_info is not None and page_info.shown:  # cases arrived between the two statements
            return fetch_cases(connection, bound, max_rows)
    version = reduce(xor, map(_ROW_VERSION, rows), 0) if bound.row_versions else None
    return cases, Version(version, definition, page_info)


def _fetch(connection: Connection, bound: BoundQuery, max_rows: int) -> Cases | None:
    """Fetch the cases with one statement, or with two if few of them are large."""
    query = bound.query
    if query.limit is None:
        text_bytes = _text_bytes.get(query, TEXT_BYTES)
    else:
        text_bytes = max(WHOLE_BYTES // query.limit, TEXT_BYTES)
    while True:
        at_most = query.limit or min(RESULT_BYTES // text_bytes, max_rows)
        parameters = bound.parameters(at_most + 1, text_bytes)
        with transaction(connection, bound.statements.read, parameters) as cursor:
            count = cursor.rowcount
            rows = [] if count > at_most else cursor.fetchall() if count <= _ROWS else _fetch_rows(cursor)
            cases = Cases(rows, types_of(cursor))
        if count > at_most and _text_bytes.pop(query, 0):  # the list has grown
            text_bytes = TEXT_BYTES
            continue
        if len(rows) < count:
            return None
        if not any(LEFT_OUT in map(column, rows) for column in _TEXTS):
            return cases
        larger = WHOLE_BYTES // count
        if larger <= text_bytes:
            return None
        text_bytes = larger
        if query.limit is None:
            if len(_text_bytes) >= MAX_QUERIES:
                _text_bytes.clear()
            _text_bytes[query] = larger


def _fetch_rows(cursor: Cursor) -> list[tuple[Any, ...]]:
    """Fetch all rows, or some if their summaries have more than ``WHOLE_BYTES``."""
    rows = list(islice(cursor, _ROWS))
    size = 0
    while len(rows) < cursor.rowcount:
        size += sum(map(len, filter(None, map(_SUMMARY, rows[-_ROWS:]))))
        if size > WHOLE_BYTES:
            break
        rows += islice(cursor, _ROWS)
    return rows
