"""marshmallow: query parameters in, cases and errors out."""

from medmitra_cases.schemas.case import CaseListSchema, CaseSchema
from medmitra_cases.schemas.error import ErrorSchema, error_body
from medmitra_cases.schemas.query import CASE_QUERY, PARAMETERS
from medmitra_cases.schemas.query_fields import UUID_RULE, DateOrTime, canonical_uuid, empty_is_absent, uuid
from medmitra_cases.schemas.query_string import find_user_id, parse_query_string
from medmitra_cases.schemas.utc_datetime import UtcDateTime

__all__ = [
    "CASE_QUERY",
    "PARAMETERS",
    "UUID_RULE",
    "CaseListSchema",
    "CaseSchema",
    "DateOrTime",
    "ErrorSchema",
    "UtcDateTime",
    "canonical_uuid",
    "empty_is_absent",
    "error_body",
    "find_user_id",
    "parse_query_string",
    "uuid",
]
