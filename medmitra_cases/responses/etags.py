"""Entity tags (RFC 9110, 8.8.3): two answers that differ never have the same."""

from collections.abc import Iterable
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

from medmitra_cases.database import sql_directory
from medmitra_cases.models import CaseQuery, Version

DIGEST_BYTES = 16


def entity_tag(query: CaseQuery, version: Version, written: Iterable[bytes] = ()) -> str:
    """Make the tag of an answer.

    Args:
        query: What was asked for, the doctor included.
        version: Of the cases in the answer.
        written: The cases as they are written, where the version does not say what the rows are.

    Returns:
        What comes between the quotes of a strong tag.
    """
    hashed = blake2b(repr((*query, *version)).encode(), digest_size=DIGEST_BYTES, key=_SERVICE)
    for piece in written:
        hashed.update(piece)
    return hashed.hexdigest()


# What a row becomes depends on the service's code, and on its SQL, which an operator may have adapted.
_FILES = (*sorted(Path(str(files("medmitra_cases"))).rglob("*.py")), *sorted(sql_directory().glob("*.sql")))
_SERVICE = blake2b(b"".join(path.read_bytes() for path in _FILES)).digest()
