"""A throw-away Postgres for the demo and for tests."""

from medmitra_cases.embedded.postgres import embedded_postgres

__all__ = ["embedded_postgres"]
