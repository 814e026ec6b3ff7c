"""What comes of looking at one thing that the service needs."""

from enum import Enum
from typing import NamedTuple


class Verdict(Enum):
    """How a finding counts: as needed, worth a change, or in the way of serving."""

    GOOD = "✓"
    ADVICE = "!"
    MISSING = "✗"


class Finding(NamedTuple):
    """One thing looked at: how it counts, what was seen, and what to do where it is not good."""

    verdict: Verdict
    seen: str
    hint: str
