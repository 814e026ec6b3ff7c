"""The documentation that the service serves: ``/``, ``/docs`` and ``/openapi.json``."""

from medmitra_cases.docs.blueprint import create_blueprint

__all__ = ["create_blueprint"]
