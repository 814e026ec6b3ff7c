"""The example that the contract was published with: the documentation shows it, and the demo serves it."""

import json
from pathlib import Path
from typing import Any

EXAMPLE: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("published_example.json").read_text(encoding="utf-8")
)

# The doctor whose cases it shows.
USER_ID: str = EXAMPLE["cases"][0]["user_id"]
