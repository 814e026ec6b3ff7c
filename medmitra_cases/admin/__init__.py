"""The admin listener: ``/livez``, ``/readyz`` and ``/metrics``."""

from medmitra_cases.admin.app import create_admin_app
from medmitra_cases.admin.readiness import Readiness

__all__ = ["Readiness", "create_admin_app"]
