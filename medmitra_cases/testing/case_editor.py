"""Adds, changes and deletes the cases of a test."""

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg2
from marshmallow import RAISE, ValidationError, fields
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from medmitra_cases.errors import MedmitraCasesError, describe_invalid
from medmitra_cases.schemas import CaseSchema, uuid


class _StoredCaseSchema(CaseSchema):
    """The values of a case to store. Keys may be missing."""

    class Meta:
        """Options read by marshmallow."""

        unknown = RAISE

    error_messages = {"unknown": "is not a key of a case"}  # noqa: RUF012, an attribute of marshmallow
    case_id = uuid("The case's UUID.", required=True)
    user_id = uuid("The doctor's UUID.", required=True)
    patient_age = fields.Integer(required=True, strict=True)


_CASE = _StoredCaseSchema()
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, _CASE.fields))


class CommandRefused(MedmitraCasesError):
    """The command cannot be executed. The message gives the reason in one line."""


class CaseEditor:
    """An editor of the table ``medmitra.cases``. It composes its statements of the keys that a test sends."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """Connect.

        Args:
            connect: Opens an autocommit connection that may write the table. Called again if it is lost.

        Raises:
            psycopg2.Error: The connection failed.
        """
        self._connect = connect
        self._connection = connect()
        self._patient_numbers = itertools.count(1)

    def add_case(self, /, **values: Any) -> dict[str, Any]:
        """Insert a case, as ``Harness.add_case``; CommandRefused if a key or a value is not as required."""
        defaults = {
            "patient_name": f"Patient {next(self._patient_numbers)}",
            "patient_age": 40,
            "patient_gender": "female",
        }
        row = _load({**defaults, **values}, "user_id")
        return self._write_case(
            sql.SQL("INSERT INTO medmitra.cases ({}) VALUES ({}) RETURNING {}").format(
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(map(sql.Placeholder, row)),
                _COLUMNS,
            ),
            row,
        )

    def update_case(self, /, **values: Any) -> dict[str, Any]:
        """Change a case, as ``Harness.update_case``; CommandRefused if it or a value is invalid."""
        row = _load(values, "case_id")
        changes = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in row]
        return self._write_case(
            sql.SQL("UPDATE medmitra.cases SET {} WHERE case_id = %(case_id)s RETURNING {}").format(
                sql.SQL(", ").join(changes), _COLUMNS
            ),
            row,
        )

    def clear(self) -> None:
        """Delete all cases; CommandRefused if another transaction has locked one."""
        # Not TRUNCATE, which waits for readers: a client may have stopped in the middle of a response.
        self._execute("DELETE FROM medmitra.cases")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _write_case(self, statement: sql.Composed, values: dict[str, Any]) -> dict[str, Any]:
        rows = self._execute(statement, values)
        if not rows:
            raise CommandRefused("no case has this case_id")
        case: dict[str, Any] = _CASE.dump(dict(zip(_CASE.fields, rows[0], strict=True)))
        return case

    def _execute(self, statement: sql.Composed | str, values: Any = None) -> list[tuple[Any, ...]]:
        try:
            with self._working_connection().cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.errors.LockNotAvailable:
            raise CommandRefused("an open transaction has locked cases: commit it or roll it back") from None
        except psycopg2.Error as error:
            message = error.diag.message_primary or str(error).partition("\n")[0]
            raise CommandRefused(f"database error: {message}") from error
        except ValueError as error:  # a text with U+0000, which Postgres cannot store
            raise CommandRefused(str(error)) from error

    def _working_connection(self) -> Connection:
        # A test may have closed the connection from the server, to simulate an outage.
        with suppress(psycopg2.Error), self._connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return self._connection
        self._connection.close()
        self._connection = self._connect()
        return self._connection


def _load(values: dict[str, Any], required: str) -> dict[str, Any]:
    optional = [name for name in _CASE.fields if name != required]
    try:
        row: dict[str, Any] = _CASE.load(values, partial=optional)
    except ValidationError as error:
        raise CommandRefused(describe_invalid(error)) from None
    return row
