"""Writes a list as JSON in chunks, while it is read."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import partial

import msgspec

from medmitra_cases.dao import CaseBatches
from medmitra_cases.models import Cases
from medmitra_cases.schemas import CaseSchema
from medmitra_cases.telemetry import metrics
from medmitra_cases.web import audit, broken_off

_CASE = CaseSchema()
_ENCODER = msgspec.json.Encoder()


def stream_json(
    batches: CaseBatches, entry: audit.Entry, resources: ExitStack
) -> Generator[bytes, None, None]:
    """Write the body of a list. After an error the last chunk is missing, so that the body is no valid JSON.

    Args:
        batches: The cases.
        entry: The request's entry in the audit, for the number of cases, the outcome, the kind of a failure.
        resources: Closed at the end.

    Yields:
        A chunk of the body.

    Raises:
        DatabaseError: The first batch could not be read.
        BrokenOff: A later batch could not be read or written.
    """
    with resources:
        chunks = _json(map(partial(_count, entry), batches))
        first = [next(chunks)]
        entry.outcome = audit.BROKEN_OFF  # until the last chunk is out
        yield first.pop()
        try:
            yield from chunks
        except Exception as error:
            failure = broken_off(error, entry.request_id)
            entry.error = failure.kind
            raise failure from None
        entry.outcome = "ok"


def dry_run(batches: CaseBatches) -> Iterator[bytes]:
    """Write the body without sending it, to hash it.

    Args:
        batches: The cases; afterwards they can be read again.

    Returns:
        The chunks of the body.

    Raises:
        DatabaseError: The cases could not be read; the batches are then closed.
    """
    return _json(batches.read_and_rewind())


def _count(entry: audit.Entry, cases: Cases) -> Cases:
    entry.cases += len(cases.rows)
    metrics.CASES.inc(len(cases.rows))
    return cases


def _json(batches: Iterator[Cases]) -> Iterator[bytes]:
    """Write batches as one body. No local variable keeps a batch while its chunk is sent."""
    yield _array_elements(b'{"cases":[', next(batches, Cases([], [])))
    yield from map(partial(_array_elements, b","), batches)
    yield b"]}"


def _array_elements(before: bytes, cases: Cases) -> bytes:
    """Write cases as the elements of a JSON array, with other bytes instead of its brackets."""
    array = bytearray(before)
    start = len(before) - 1
    _ENCODER.encode_into(_CASE.dump_rows(*cases), array, start)
    array[start] = before[-1]
    del array[-1]
    return bytes(array)
