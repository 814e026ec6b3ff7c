"""Answers ``GET /cases/all_cases?user_id=<uuid>`` with one doctor's patient cases from Postgres."""

from medmitra_cases.app import create_app
from medmitra_cases.version import __version__

__all__ = ["__version__", "create_app"]
