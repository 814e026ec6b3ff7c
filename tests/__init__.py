"""Registers a hypothesis profile; pytest imports this before hypothesis reads ``--hypothesis-profile``."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=20_000)
