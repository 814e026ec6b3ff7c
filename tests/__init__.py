"""Pytest imports this before hypothesis's plugin looks for the profile that its command line names."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=20_000)
