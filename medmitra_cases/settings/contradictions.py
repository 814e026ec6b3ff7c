"""Finds settings that contradict each other, or that have no effect."""

from collections.abc import Mapping


def find_contradictions(sent: Mapping[str, str], *, trusts_user_id: bool) -> dict[str, list[str]]:
    """Find settings that contradict each other, or that have no effect without another one.

    Args:
        sent: The environment variables that are set.
        trusts_user_id: Whether ``MEDMITRA_TRUST_USER_ID`` is true.

    Returns:
        The messages by the names of the variables.
    """
    sources = [name for name in ("MEDMITRA_JWT_SECRET", "MEDMITRA_JWKS_URL") if name in sent]
    mistakes = {
        name: ["has no effect without MEDMITRA_JWT_SECRET or MEDMITRA_JWKS_URL"]
        for name in ("MEDMITRA_JWT_AUDIENCE", "MEDMITRA_JWT_ISSUER")
        if name in sent and not sources
    }
    if "MEDMITRA_JWT_SECRET_PREVIOUS" in sent and "MEDMITRA_JWT_SECRET" not in sent:
        mistakes["MEDMITRA_JWT_SECRET_PREVIOUS"] = ["has no effect without MEDMITRA_JWT_SECRET"]
    if "MEDMITRA_CORS_HEADERS" in sent and "MEDMITRA_CORS_ORIGINS" not in sent:
        mistakes["MEDMITRA_CORS_HEADERS"] = ["has no effect without MEDMITRA_CORS_ORIGINS"]
    if sources and trusts_user_id:
        mistakes["MEDMITRA_TRUST_USER_ID"] = [
            f"cannot be combined with {sources[0]}: the token names the doctor"
        ]
    return mistakes
