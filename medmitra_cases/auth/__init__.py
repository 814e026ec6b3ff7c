"""Bearer tokens, which name the doctor who asks, and the keys that verify them."""

from medmitra_cases.auth.jwks import download_keys
from medmitra_cases.auth.tokens import MAX_TOKEN_BYTES, Verifier, create_verifier, mint_token

__all__ = ["MAX_TOKEN_BYTES", "Verifier", "create_verifier", "download_keys", "mint_token"]
