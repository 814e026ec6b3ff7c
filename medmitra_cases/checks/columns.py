"""Checks the columns of ``medmitra.cases``."""

from marshmallow import fields

from medmitra_cases.checks.catalogue import Column
from medmitra_cases.checks.finding import Finding, Verdict, psql_as_owner
from medmitra_cases.database import sql_directory
from medmitra_cases.schemas import CaseSchema, UtcDateTime

# The allowed types of a column by the field of the response: with others the response would be another one.
_TEXT = frozenset({"text", "character varying", "character", "citext"})
_TYPES = {
    fields.String: _TEXT,
    fields.Integer: frozenset({"smallint", "integer", "bigint"}),
    UtcDateTime: frozenset({"timestamp with time zone", "timestamp without time zone"}),
}
_FIELDS = {name: type(field) for name, field in CaseSchema().dump_fields.items()}
COLUMN_TYPES = {
    "id": frozenset({"bigint", "integer"}),
    **{name: _TYPES[field] for name, field in _FIELDS.items()},
    "case_id": _TEXT - {"citext"} | {"uuid"},
    "user_id": frozenset({"uuid"}),
}

# The types to cast to in a view.
_CAST_TO = {fields.String: "text", fields.Integer: "integer", UtcDateTime: "timestamptz"}
_CASTS = {"id": "bigint", **{name: _CAST_TO[field] for name, field in _FIELDS.items()}, "user_id": "uuid"}


def check_types(columns: list[Column]) -> Finding:
    """Check that each column exists and has a type whose values the response can contain.

    Args:
        columns: The columns of ``medmitra.cases``.

    Returns:
        The finding.
    """
    found = {column.name: column.type for column in columns}
    missing = [f"medmitra.cases.{name} is missing" for name in COLUMN_TYPES if name not in found]
    others = [name for name, types in COLUMN_TYPES.items() if name in found and found[name] not in types]
    mistakes = missing + [
        f"medmitra.cases.{name} is {found[name]}, not {' or '.join(sorted(COLUMN_TYPES[name]))}"
        for name in others
    ]
    casts = ", ".join(f"{name}::{_CASTS[name]}" for name in others)
    return Finding(
        Verdict.MISSING if mistakes else Verdict.GOOD,
        "; ".join(mistakes) or "all columns of medmitra.cases exist and have the right types",
        f"compare medmitra.cases with the table in {sql_directory() / 'schema.sql'}"
        + (
            f", or serve a view, as {sql_directory() / 'existing_table.sql'} does, with {casts}"
            if casts
            else ""
        ),
    )


def check_rights(columns: list[Column]) -> Finding:
    """Check that the role may read the columns.

    Args:
        columns: The columns of ``medmitra.cases``.

    Returns:
        The finding.
    """
    unreadable = [column.name for column in columns if column.name in COLUMN_TYPES and not column.readable]
    return Finding(
        Verdict.MISSING if unreadable else Verdict.GOOD,
        f"the role may not read these columns of medmitra.cases: {', '.join(unreadable)}"
        if unreadable
        else "the role may read all columns of medmitra.cases that the service needs",
        "let the service log in as the role medmitra_cases, which the owner of medmitra.cases creates with"
        f" {psql_as_owner('roles.sql')}",
    )


def check_times() -> Finding:
    """Report a table that may contain times that the response cannot.

    Returns:
        The finding.
    """
    return Finding(
        Verdict.ADVICE,
        "medmitra.cases may contain infinite times, and years before 1 or after 9999: the response has null"
        " for them",
        f"add the two CHECK constraints of {sql_directory() / 'schema.sql'}",
    )
