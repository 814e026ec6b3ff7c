"""Writes an answer that is too long to hold at once, piece by piece."""

from collections.abc import Generator, Iterator

import msgspec

from medmitra_cases.dao import CaseBatches
from medmitra_cases.models import Cases
from medmitra_cases.schemas import CaseSchema
from medmitra_cases.telemetry import metrics
from medmitra_cases.web import audit, broken_off

_CASE = CaseSchema()


def stream_json(batches: CaseBatches, entry: audit.Entry) -> Generator[bytes, None, None]:
    """Write the answer in pieces. If that fails the last one never comes, and what was sent is not JSON.

    Args:
        batches: The cases; closed at the end.
        entry: The audit's entry; written at the end, unless the first piece fails.

    Yields:
        A piece of the answer.

    Raises:
        DatabaseError: The first piece could not be read.
        BrokenOff: A later piece could not be read or written.
    """
    outcome = None
    try:
        cases = next(batches, Cases([], []))
        piece = b'{"cases":[' + _array_elements(cases)
        outcome = audit.BROKEN_OFF  # until the last piece is out
        entry.cases = len(cases.rows)
        metrics.CASES.inc(len(cases.rows))
        yield piece
        try:
            for cases in batches:
                piece = b"," + _array_elements(cases)
                entry.cases += len(cases.rows)
                metrics.CASES.inc(len(cases.rows))
                yield piece
        except Exception as error:
            raise broken_off(error, entry.request_id) from None
        yield b"]}"
        outcome = "ok"
    finally:
        batches.close()
        if outcome is not None:
            entry.write(200, outcome)


def dry_run(batches: CaseBatches) -> Iterator[bytes]:
    """Write the cases without sending them.

    Args:
        batches: The cases; still to be read, afterwards as before.

    Returns:
        The pieces of the answer, one after the other.

    Raises:
        DatabaseError: They could not be read; the batches are closed then.
    """
    return map(_array_elements, batches.read_and_rewind())


def _array_elements(cases: Cases) -> bytes:
    """Write cases as the elements of a JSON array, without its brackets."""
    return msgspec.json.encode(_CASE.dump_rows(*cases))[1:-1]
