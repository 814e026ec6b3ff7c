"""The result of one check."""

from enum import Enum
from typing import NamedTuple


class Verdict(Enum):
    """The severity of a finding: as needed, worth a change, or missing, so that the service cannot work."""

    GOOD = "✓"
    ADVICE = "!"
    MISSING = "✗"


class Finding(NamedTuple):
    """The severity, the observation, and what to do if the verdict is not ``GOOD``."""

    verdict: Verdict
    seen: str
    hint: str
