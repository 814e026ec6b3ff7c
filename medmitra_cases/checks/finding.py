"""The result of one check."""

from enum import Enum
from typing import NamedTuple

from medmitra_cases.database import psql

# A shell stops with this text if the variable is not set. The commands of the hints do not use DATABASE_URL:
# the role of the service cannot change the database.
OWNER_URL = "${OWNER_URL:?set it to the address of this database for its owner}"


class Verdict(Enum):
    """The severity of a finding: as needed, worth a change, or missing.

    Without what is missing the service cannot work, or the database does not separate the doctors.
    """

    GOOD = "✓"
    ADVICE = "!"
    MISSING = "✗"


class Finding(NamedTuple):
    """The severity, the observation, and what to do if the verdict is not ``GOOD``."""

    verdict: Verdict
    seen: str
    hint: str


def psql_as_owner(file: str) -> str:
    """Return the ``psql`` command that runs a file of ``sql/`` as the owner of the database.

    Args:
        file: The file's name.

    Returns:
        A line for a shell.
    """
    return psql(file, url=OWNER_URL)
