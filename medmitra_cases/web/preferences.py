"""The preferences of a client (RFC 7240)."""

from collections.abc import Mapping
from typing import Any

from werkzeug.http import parse_list_header

from medmitra_cases.web.headers import MAX_FIELD_BYTES

# The header field of a response for which the preference was applied. No ``Vary: Prefer``: it changes no
# body, and every cache must revalidate.
STRICT_APPLIED = ("Preference-Applied", "handling=strict")


def is_strict(environ: Mapping[str, Any]) -> bool:
    """Tell whether a client prefers an error to a response that ignores a mistake (RFC 7240, 4.4).

    Args:
        environ: The WSGI environment. A ``Prefer`` of more than ``MAX_FIELD_BYTES`` is ignored.

    Returns:
        Whether the first ``handling`` is ``strict``.
    """
    sent = environ.get("HTTP_PREFER", "")
    if not sent or len(sent) > MAX_FIELD_BYTES:
        return False
    for preference in parse_list_header(sent):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "handling":
            return value.strip().strip('"').lower() == "strict"
    return False
