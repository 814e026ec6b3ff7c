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
from medmitra_cases.responses.stream import dry_run, stream_json
from medmitra_cases.schemas import CasesSchema
from medmitra_cases.telemetry import metrics
from medmitra_cases.web import CACHE_HEADERS, audit

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


class CasesRequest(NamedTuple):
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


def respond(database: Database, cases_request: CasesRequest) -> Response:
    """Answer with the cases, or with the news that there is none.

    Args:
        database: Where the cases are.
        cases_request: What was cases_request for.

    Returns:
        The response, which may still be reading.

    Raises:
        Fault: The database cannot be reached, or failed.
        DataRefused: The database refused the data of this request.
        UnknownCursor: The case to go on after is none of this doctor's.
    """
    return (
        _unchanged(database, cases_request)
        or _whole(database, cases_request)
        or _streamed(database, cases_request)
    )


def _unchanged(database: Database, cases_request: CasesRequest) -> Response | None:
    """Answer without reading a case, if the client has what it would get."""
    if not cases_request.tags or not cases_request.row_versions:
        return None
    version = database.read(
        cases_request.since,
        fetch_version,
        cases_request.query,
        subject=cases_request.subject,
        row_versions=cases_request.row_versions,
    )
    tag = entity_tag(cases_request.query, version)
    return (
        _not_modified(_headers(cases_request, version, tag))
        if cases_request.tags.contains_weak(tag)
        else None
    )


def _whole(database: Database, cases_request: CasesRequest) -> Response | None:
    """Answer with all cases at once, unless they are too many for that."""
    fetched = database.read(
        cases_request.since,
        fetch_cases,
        cases_request.query,
        subject=cases_request.subject,
        at_most=WHOLE_CASES,
        row_versions=cases_request.row_versions,
    )
    if fetched is None:
        return None
    cases, version = fetched
    body = msgspec.json.encode(_CASES.dump_rows(*cases))
    tag = entity_tag(cases_request.query, version, () if cases_request.row_versions else [body])
    headers = _headers(cases_request, version, tag)
    if cases_request.tags.contains_weak(tag):
        return _not_modified(headers)
    cases_request.entry.cases = 0 if request.method == "HEAD" else len(cases.rows)
    metrics.CASES.inc(cases_request.entry.cases)
    headers.append(("Content-Length", str(len(body))))
    return ReadyResponse([body], headers=[_JSON, *headers], direct_passthrough=True)


def _streamed(database: Database, cases_request: CasesRequest) -> Response:
    """Answer with the cases as they are read."""
    batches = database.read(
        cases_request.since,
        CaseBatches,
        cases_request.query,
        subject=cases_request.subject,
        size=CHUNK_CASES,
        row_versions=cases_request.row_versions,
    )
    try:
        return _stream_response(batches, cases_request)
    except BaseException:
        batches.close()  # or this thread would go on reading from their snapshot
        raise


def _stream_response(batches: CaseBatches, cases_request: CasesRequest) -> Response:
    tag = entity_tag(
        cases_request.query, batches.version, () if cases_request.row_versions else dry_run(batches)
    )
    headers = _headers(cases_request, batches.version, tag)
    if cases_request.tags.contains_weak(tag):
        batches.close()
        return _not_modified(headers)
    if request.method == "HEAD":
        batches.close()
        return ReadyResponse(headers=[_JSON, *headers])
    written = stream_json(batches, cases_request.entry)
    first = next(written)  # a failure up to here is still a 500
    audit.defer()
    chunks = ClosingIterator(chain([first], written), written.close)
    return ReadyResponse(chunks, headers=[_JSON, *headers], direct_passthrough=True)


def _headers(cases_request: CasesRequest, version: Version, tag: str) -> list[tuple[str, str]]:
    """Describe an answer, whether its cases come along or not."""
    described = [*CACHE_HEADERS, ("ETag", f'"{tag}"')]
    if version.page_info is not None:
        described.append(("X-Total-Count", str(version.page_info.total)))
        described.append(("Link", link_header(cases_request.sent, cases_request.query, version.page_info)))
    return described


def _not_modified(headers: list[tuple[str, str]]) -> Response:
    return ReadyResponse(status=304, headers=headers)
