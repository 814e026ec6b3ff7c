"""The checks of ``medmitra-cases check``: does the database have what the service needs?"""

from medmitra_cases.checks.catalogue import Column, describe_cases
from medmitra_cases.checks.checklist import check_database
from medmitra_cases.checks.finding import Verdict

__all__ = ["Column", "Verdict", "check_database", "describe_cases"]
