"""Takes the links of a page apart."""

import re
from urllib.parse import parse_qsl

from werkzeug.test import TestResponse

# The web client's names.
ALIASES = {
    "min_age": "minAge",
    "max_age": "maxAge",
    "start_date": "startDate",
    "end_date": "endDate",
    "sort_by": "sortBy",
    "sort_order": "sortOrder",
}


def links(response: TestResponse) -> dict[str, dict[str, str]]:
    """The parameters of each link's target, by the link's relation."""
    header = response.headers["Link"]
    written = [re.fullmatch(r'<\?([^<>" ]+)>; rel="(\w+)"', link) for link in header.split(", ")]
    found = {link[2]: dict(parse_qsl(link[1], True, True)) for link in written if link}
    assert len(found) == len(written), header
    return found
