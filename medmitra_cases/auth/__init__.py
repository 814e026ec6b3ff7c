"""Which doctor is asking: bearer tokens and the keys that verify them."""

from medmitra_cases.auth.tokens import LONGEST_TOKEN, Verifier, create_verifier, mint_token

__all__ = ["LONGEST_TOKEN", "Verifier", "create_verifier", "mint_token"]
