"""Returns one doctor's patient cases from Postgres: ``GET /cases/all_cases?user_id=<uuid>``."""

from importlib import import_module
from typing import TYPE_CHECKING

from medmitra_cases.contract import __version__

if TYPE_CHECKING:
    from medmitra_cases.app import create_app

__all__ = ["__version__", "create_app"]


def __getattr__(name: str) -> object:
    # Imported on first use: it takes a fifth of a second, and every run of pytest imports our plugin.
    if name == "create_app":
        return import_module("medmitra_cases.app").create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
