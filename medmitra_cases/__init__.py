"""Answers ``GET /cases/all_cases?user_id=<uuid>`` with one doctor's patient cases from Postgres."""

from medmitra_cases.app import create_app

__all__ = ["__version__", "create_app"]

__version__ = "0.1.0"
