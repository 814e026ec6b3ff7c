"""Writes a list as JSON in chunks, while it is read."""

from collections.abc import Generator, Iterator

import msgspec

from medmitra_cases.dao import CaseBatches
from medmitra_cases.models import Cases
from medmitra_cases.schemas import CaseSchema
from medmitra_cases.telemetry import metrics
from medmitra_cases.web import audit, broken_off

_CASE = CaseSchema()


def stream_json(batches: CaseBatches, entry: audit.Entry) -> Generator[bytes, None, None]:
    """Write the body of a list. After an error the last chunk is missing, so that the body is no valid JSON.

    Args:
        batches: The cases; closed at the end.
        entry: The request's entry in the audit, for the number of cases and the outcome.

    Yields:
        A chunk of the body.

    Raises:
        DatabaseError: The first batch could not be read.
        BrokenOff: A later batch could not be read or written.
    """
    try:
        cases = next(batches, Cases([], []))
        chunk = b'{"cases":[' + _array_elements(cases)
        entry.outcome = audit.BROKEN_OFF  # until the last chunk is out
        _count(cases, entry)
        yield chunk
        try:
            for cases in batches:
                chunk = b"," + _array_elements(cases)
                _count(cases, entry)
                yield chunk
        except Exception as error:
            raise broken_off(error, entry.request_id) from None
        yield b"]}"
        entry.outcome = "ok"
    finally:
        batches.close()


def dry_run(batches: CaseBatches) -> Iterator[bytes]:
    """Write the cases without sending them, to hash the body.

    Args:
        batches: The cases; afterwards they can be read again.

    Returns:
        The chunks of the body.

    Raises:
        DatabaseError: The cases could not be read; the batches are then closed.
    """
    return map(_array_elements, batches.read_and_rewind())


def _count(cases: Cases, entry: audit.Entry) -> None:
    entry.cases += len(cases.rows)
    metrics.CASES.inc(len(cases.rows))


def _array_elements(cases: Cases) -> bytes:
    """Write cases as the elements of a JSON array, without its brackets."""
    return msgspec.json.encode(_CASE.dump_rows(*cases))[1:-1]
