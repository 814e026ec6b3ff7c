"""The test harness for other teams: the real service on a real Postgres, with the cases that a test adds.

pytest has the fixture ``medmitra`` if this package is installed. Other Python code uses a context manager::

    with harness() as medmitra:
        medmitra.add_case(user_id=DOCTOR, patient_name="Ada", status="completed")
        requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR)).json()

Tests in other languages use the command ``medmitra-cases harness``.
"""

from medmitra_cases.testing.client import Harness
from medmitra_cases.testing.errors import HarnessError
from medmitra_cases.testing.start import harness

__all__ = ["Harness", "HarnessError", "harness"]
