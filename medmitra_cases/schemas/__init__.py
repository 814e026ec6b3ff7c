"""marshmallow: query parameters in, cases and errors out."""

from medmitra_cases.schemas.case import CaseSchema, CasesSchema
from medmitra_cases.schemas.error import ErrorSchema, error_body
from medmitra_cases.schemas.query import CASE_QUERY, OPTIONAL_NAMES
from medmitra_cases.schemas.query_fields import CANONICAL_UUID, UUID_RULE, DateOrTime, uuid
from medmitra_cases.schemas.query_string import load_query, parameters
from medmitra_cases.schemas.utc_datetime import UtcDateTime

__all__ = [
    "CANONICAL_UUID",
    "CASE_QUERY",
    "OPTIONAL_NAMES",
    "UUID_RULE",
    "CaseSchema",
    "CasesSchema",
    "DateOrTime",
    "ErrorSchema",
    "UtcDateTime",
    "error_body",
    "load_query",
    "parameters",
    "uuid",
]
