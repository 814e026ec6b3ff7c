"""The version of the service, and the path and the example of its published contract."""

from typing import Any

__version__ = "0.1.0"

PATH = "/cases/all_cases"

EXAMPLE: dict[str, list[dict[str, Any]]] = {
    "cases": [
        {
            "case_id": "a1b2c3d4-5678-90ab-cdef-1234567890ab",
            "user_id": "b8acad4b-4944-4d66-b405-de70886e7248",
            "patient_name": "John Doe",
            "patient_age": 45,
            "patient_gender": "male",
            "case_summary": "Patient presents with chest pain and shortness of breath",
            "status": "completed",
            "created_at": "2026-03-04T10:30:00Z",
            "updated_at": "2026-03-04T11:45:00Z",
        },
        {
            "case_id": "b2c3d4e5-6789-01bc-def0-2345678901bc",
            "user_id": "b8acad4b-4944-4d66-b405-de70886e7248",
            "patient_name": "Jane Smith",
            "patient_age": 32,
            "patient_gender": "female",
            "case_summary": "Follow-up appointment for diabetes management",
            "status": "analyzing",
            "created_at": "2026-03-03T14:20:00Z",
            "updated_at": "2026-03-03T14:20:00Z",
        },
    ]
}

# The doctor of the example.
USER_ID: str = EXAMPLE["cases"][0]["user_id"]
