"""Parses the ``Link`` header of a page."""

import re
from typing import Any
from urllib.parse import parse_qs

from werkzeug.test import TestResponse

# The names that the web client uses for these parameters.
ALIASES = {
    "min_age": "minAge",
    "max_age": "maxAge",
    "start_date": "startDate",
    "end_date": "endDate",
    "updated_since": "updatedSince",
    "sort_by": "sortBy",
    "sort_order": "sortOrder",
}


def links(response: TestResponse) -> dict[str, dict[str, Any]]:
    """Return the query parameters of each link's target, by the link's relation. Repeated ones are a list."""
    header = response.headers["Link"]
    matches = [re.fullmatch(r'<\?([^<>" ]+)>; rel="(\w+)"', link) for link in header.split(", ")]
    targets = {match[2]: parse_qs(match[1], True, True) for match in matches if match}
    assert len(targets) == len(matches), header
    return {
        relation: {name: values if len(values) > 1 else values[0] for name, values in target.items()}
        for relation, target in targets.items()
    }
