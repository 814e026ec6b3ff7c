"""The checks of the command ``medmitra-cases check``: does the database have what the service needs?"""

from medmitra_cases.checks.access import check_certificate, check_keys, check_link
from medmitra_cases.checks.catalogue import Column, describe_cases
from medmitra_cases.checks.checklist import check_database
from medmitra_cases.checks.finding import Finding, Verdict

__all__ = [
    "Column",
    "Finding",
    "Verdict",
    "check_certificate",
    "check_database",
    "check_keys",
    "check_link",
    "describe_cases",
]
