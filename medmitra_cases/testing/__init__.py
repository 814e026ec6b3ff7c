"""The service for other teams' integration tests: real, on a real Postgres, with the cases that a test needs.

With pytest the fixture ``medmitra`` is there as soon as this package is installed. Anywhere else::

    with harness() as medmitra:
        medmitra.add_case(user_id=DOCTOR, patient_name="Ada", status="completed")
        requests.get(medmitra.url("/cases/all_cases", user_id=DOCTOR)).json()

For teams not in Python there is ``medmitra-cases harness``.
"""

from medmitra_cases.testing.client import Harness, HarnessError
from medmitra_cases.testing.start import harness

__all__ = ["Harness", "HarnessError", "harness"]
