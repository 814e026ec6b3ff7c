"""Chooses the response to a request for cases: 304, the whole list at once, or a stream."""

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from flask import Response
from werkzeug.datastructures import ETags, Headers
from werkzeug.wsgi import ClosingIterator

from medmitra_cases.dao import CaseReader
from medmitra_cases.models import Version
from medmitra_cases.responses.etags import entity_tag
from medmitra_cases.responses.limits import Limits
from medmitra_cases.responses.links import link_header
from medmitra_cases.responses.stream import dry_run, stream_json
from medmitra_cases.schemas import CaseListSchema
from medmitra_cases.telemetry import metrics
from medmitra_cases.web import CACHE_HEADERS, audit

# A longer list is streamed, in chunks of at most so many cases. The DAO limits the bytes of both.
WHOLE_CASES = 2_000
CHUNK_CASES = 1_000

_CASES = CaseListSchema()  # built once: marshmallow copies every field each time a schema is made

_JSON = ("Content-Type", "application/json")


class CasesRequest(NamedTuple):
    """An authorized request for cases.

    Attributes:
        parameters: Every value of every query parameter, by the name that the client sent.
        if_none_match: The entity tags that the client has.
        is_head: Whether the method is HEAD.
        entry: The request's entry in the audit.
        limits: The limits of the server.
    """

    parameters: Mapping[str, list[str]]
    if_none_match: ETags
    is_head: bool
    entry: audit.Entry
    limits: Limits


class PlainResponse(Response):
    """A response with exactly the header fields it is given: to look for more costs every request."""

    default_mimetype = None

    def get_wsgi_headers(self, _environ: dict[str, Any]) -> Headers:
        """Return the header fields unchanged."""
        return self.headers


def respond(reader: CaseReader, request: CasesRequest) -> Response:
    """Answer a request for cases.

    Args:
        reader: Reads the cases.
        request: The request.

    Returns:
        The response; a stream still reads.

    Raises:
        Fault: The database cannot be reached, or failed.
        DataRefused: The database refused the data of this request.
        UnknownCursor: The doctor has no case ``after``.
    """
    return _unchanged(reader, request) or _whole_list(reader, request) or _stream(reader, request)


def _unchanged(reader: CaseReader, request: CasesRequest) -> Response | None:
    """Answer 304 without reading a case, if the client has the current list."""
    version = reader.version() if request.if_none_match else None
    if version is None:
        return None
    tag = entity_tag(reader.query, version)
    if not request.if_none_match.contains_weak(tag):
        return None
    return _not_modified(_headers(reader, request, version, tag))


def _whole_list(reader: CaseReader, request: CasesRequest) -> Response | None:
    """Answer with all cases at once, unless they are too many or too large."""
    fetched = reader.whole(WHOLE_CASES)
    if fetched is None:
        return None
    cases, version = fetched
    body = msgspec.json.encode(_CASES.dump_rows(*cases))
    tag = entity_tag(reader.query, version, [body] if version.rows is None else ())
    headers = _headers(reader, request, version, tag)
    if request.if_none_match.contains_weak(tag):
        return _not_modified(headers)
    if not (request.is_head or request.limits.has_room(len(body))):
        return None
    request.entry.cases = 0 if request.is_head else len(cases.rows)
    metrics.CASES.inc(request.entry.cases)
    headers.append(("Content-Length", str(len(body))))
    return PlainResponse([body], headers=[_JSON, *headers], direct_passthrough=True)


def _stream(reader: CaseReader, request: CasesRequest) -> Response:
    """Answer with the cases while they are read."""
    with ExitStack() as resources:
        request.limits.begin_stream()
        resources.callback(request.limits.end_stream)
        batches = reader.batches(CHUNK_CASES)
        resources.callback(batches.close)
        version = batches.version
        tag = entity_tag(reader.query, version, dry_run(batches) if version.rows is None else ())
        headers = _headers(reader, request, version, tag)
        if request.if_none_match.contains_weak(tag):
            return _not_modified(headers)
        if request.is_head:
            return PlainResponse(headers=[_JSON, *headers])
        chunks = stream_json(batches, request.entry, resources.pop_all())
        first = next(chunks)  # an error up to here is still a 500
    return PlainResponse(ClosingIterator(chain([first], chunks), chunks.close), headers=[_JSON, *headers])


def _headers(reader: CaseReader, request: CasesRequest, version: Version, tag: str) -> list[tuple[str, str]]:
    """List the header fields that describe the list, with or without its body."""
    headers = [*CACHE_HEADERS, ("ETag", f'"{tag}"')]
    if version.page_info is not None:
        headers.append(("X-Total-Count", str(version.page_info.total)))
        link = link_header(request.parameters, reader.query, version.page_info)
        if link:
            headers.append(("Link", link))
    return headers


def _not_modified(headers: list[tuple[str, str]]) -> Response:
    return PlainResponse(status=304, headers=headers)
