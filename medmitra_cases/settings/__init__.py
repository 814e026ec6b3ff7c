"""The environment in, ``Settings`` out."""

from medmitra_cases.settings.environment import unknown_variables
from medmitra_cases.settings.rules import is_loopback, must_be_database_url, must_be_listen_address
from medmitra_cases.settings.schema import SettingsSchema
from medmitra_cases.settings.settings import Settings

__all__ = [
    "Settings",
    "SettingsSchema",
    "is_loopback",
    "must_be_database_url",
    "must_be_listen_address",
    "unknown_variables",
]
