"""The published contract: the path, and the example that the documentation shows and the demo serves."""

import json
from pathlib import Path
from typing import Any

PATH = "/cases/all_cases"

EXAMPLE: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("contract.json").read_text(encoding="utf-8")
)

# The doctor whose cases it shows.
USER_ID: str = EXAMPLE["cases"][0]["user_id"]
