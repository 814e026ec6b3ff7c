"""Answers a request for cases that may be answered: not at all new, all at once, or as they are read."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from flask import Response, request
from werkzeug.datastructures import ETags, Headers
from werkzeug.wsgi import ClosingIterator

from medmitra_cases.dao import CaseBatches, fetch_cases, fetch_version
from medmitra_cases.database import Database
from medmitra_cases.models import CaseQuery, Version
from medmitra_cases.responses.etags import entity_tag
from medmitra_cases.responses.links import link_header
from medmitra_cases.responses.stream import pieces, rehearsal
from medmitra_cases.schemas import CasesSchema
from medmitra_cases.telemetry import metrics
from medmitra_cases.web import CACHING, audit

# A doctor with more cases gets them as they are read, in chunks: held at once, a case costs some 1.5 kB, more
# where its summary is long.
WHOLE_CASES = 2_000
CHUNK_CASES = 1_000

_CASES = CasesSchema()  # built once: marshmallow copies every field each time a schema is made

_JSON = ("Content-Type", "application/json")


class ReadyResponse(Response):
    """A response with just the headers it is given: looking for what to add or mend costs every request."""

    default_mimetype = None

    def get_wsgi_headers(self, _environ: dict[str, Any]) -> Headers:
        """Return the headers as they are.

        Returns:
            The headers.
        """
        return self.headers


class Asked(NamedTuple):
    """A request for cases that may be answered.

    Attributes:
        sent: The parameters as the client sent them.
        query: What they mean.
        subject: The doctor on whose behalf it is.
        since: When it came, in seconds of the monotonic clock.
        tags: Those that it names in ``If-None-Match``.
        row_versions: Whether entity tags are made of the rows' versions, and not of the body.
        entry: The audit's entry.
    """

    sent: Mapping[str, list[str]]
    query: CaseQuery
    subject: str
    since: float
    tags: ETags
    row_versions: bool
    entry: audit.Entry


def answer(database: Database, asked: Asked) -> Response:
    """Answer with the cases, or with the news that there is none.

    Args:
        database: Where the cases are.
        asked: What was asked for.

    Returns:
        The response, which may still be reading.

    Raises:
        Fault: The database cannot be reached, or failed.
        DataRefused: The database refused the data of this request.
        UnknownPlace: The case to go on after is none of this doctor's.
    """
    return _unchanged(database, asked) or _whole(database, asked) or _in_pieces(database, asked)


def _unchanged(database: Database, asked: Asked) -> Response | None:
    """Answer without reading a case, if the client has what it would get."""
    if not asked.tags or not asked.row_versions:
        return None
    version = database.read(
        asked.since, fetch_version, asked.query, subject=asked.subject, row_versions=asked.row_versions
    )
    tag = entity_tag(asked.query, version)
    return _not_modified(_headers(asked, version, tag)) if asked.tags.contains_weak(tag) else None


def _whole(database: Database, asked: Asked) -> Response | None:
    """Answer with all cases at once, unless they are too many for that."""
    fetched = database.read(
        asked.since,
        fetch_cases,
        asked.query,
        subject=asked.subject,
        at_most=WHOLE_CASES,
        row_versions=asked.row_versions,
    )
    if fetched is None:
        return None
    cases, version = fetched
    body = msgspec.json.encode(_CASES.dump_rows(*cases))
    tag = entity_tag(asked.query, version, () if asked.row_versions else [body])
    headers = _headers(asked, version, tag)
    if asked.tags.contains_weak(tag):
        return _not_modified(headers)
    asked.entry.cases = 0 if request.method == "HEAD" else len(cases.rows)
    metrics.CASES.inc(asked.entry.cases)
    headers.append(("Content-Length", str(len(body))))
    return ReadyResponse([body], headers=[_JSON, *headers], direct_passthrough=True)


def _in_pieces(database: Database, asked: Asked) -> Response:
    """Answer with the cases as they are read."""
    batches = database.read(
        asked.since,
        CaseBatches,
        asked.query,
        subject=asked.subject,
        size=CHUNK_CASES,
        row_versions=asked.row_versions,
    )
    try:
        return _from_batches(batches, asked)
    except BaseException:
        batches.close()  # or this thread would go on reading from their snapshot
        raise


def _from_batches(batches: CaseBatches, asked: Asked) -> Response:
    tag = entity_tag(asked.query, batches.version, () if asked.row_versions else rehearsal(batches))
    headers = _headers(asked, batches.version, tag)
    if asked.tags.contains_weak(tag):
        batches.close()
        return _not_modified(headers)
    if request.method == "HEAD":
        batches.close()
        return ReadyResponse(headers=[_JSON, *headers])
    written = pieces(batches, asked.entry)
    first = next(written)  # a failure up to here is still a 500
    audit.take()
    chunks = ClosingIterator(chain([first], written), written.close)
    return ReadyResponse(chunks, headers=[_JSON, *headers], direct_passthrough=True)


def _headers(asked: Asked, version: Version, tag: str) -> list[tuple[str, str]]:
    """Describe an answer, whether its cases come along or not."""
    described = [*CACHING, ("ETag", f'"{tag}"')]
    if version.facts is not None:
        described.append(("X-Total-Count", str(version.facts.total)))
        described.append(("Link", link_header(asked.sent, asked.query, version.facts)))
    return described


def _not_modified(headers: list[tuple[str, str]]) -> Response:
    return ReadyResponse(status=304, headers=headers)
