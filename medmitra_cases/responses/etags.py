"""Entity tags (RFC 9110, 8.8.3): two different responses never have the same tag."""

from collections.abc import Iterable
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

from medmitra_cases.database import sql_directory
from medmitra_cases.models import CaseQuery, Version

DIGEST_BYTES = 16


def entity_tag(query: CaseQuery, version: Version, body: Iterable[bytes] = ()) -> str:
    """Make the tag of a response.

    Args:
        query: The query, which names the doctor.
        version: The version of the cases in the response.
        body: The chunks of the body, if the version has no versions of the rows.

    Returns:
        The text between the quotes of a strong tag.
    """
    digest = blake2b(repr((*query, *version)).encode(), digest_size=DIGEST_BYTES, key=_SERVICE)
    for chunk in body:
        digest.update(chunk)
    return digest.hexdigest()


# The same rows become another body if the service's code changes, or its SQL, which an operator may adapt.
_FILES = (*sorted(Path(str(files("medmitra_cases"))).rglob("*.py")), *sorted(sql_directory().glob("*.sql")))
_SERVICE = blake2b(b"".join(path.read_bytes() for path in _FILES)).digest()
