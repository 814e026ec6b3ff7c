"""Adds, changes and deletes the cases of a test."""

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
_DEFAULTS = {"patient_age": 40, "patient_gender": "female"}
# The result of one command is one line of JSON: 100,000 cases have about 35 MB.
MAX_CASES = 100_000
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
        self._patients = 0

    def add_case(self, /, **values: Any) -> dict[str, Any]:
        """Insert a case, as ``Harness.add_case``; CommandRefused if a key or a value is not as required."""
        return self._insert(1, _load({**_DEFAULTS, **values}, "user_id"))[0]

    def add_cases(self, /, count: object, **values: Any) -> list[dict[str, Any]]:
        """Insert cases, as ``Harness.add_cases``; CommandRefused as ``add_case``."""
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_CASES:
            raise CommandRefused(f"count must be an integer from 0 to {MAX_CASES}")
        if "case_id" in values:
            raise CommandRefused("case_id cannot be the same for several cases")
        return self._insert(count, _load({**_DEFAULTS, **values}, "user_id"))

    def update_case(self, /, **values: Any) -> dict[str, Any]:
        """Change a case, as ``Harness.update_case``; CommandRefused if it or a value is invalid."""
        row = _load(values, "case_id")
        changes = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in row]
        cases = self._write(
            sql.SQL("UPDATE medmitra.cases SET {} WHERE case_id = %(case_id)s RETURNING {}").format(
                sql.SQL(", ").join(changes), _COLUMNS
            ),
            row,
        )
        if not cases:
            raise CommandRefused("no case has this case_id")
        return cases[0]

    def clear(self) -> None:
        """Delete all cases; CommandRefused if another transaction has locked one."""
        # Not TRUNCATE, which waits for readers: a client may have stopped in the middle of a response.
        self._execute("DELETE FROM medmitra.cases")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _insert(self, count: int, row: dict[str, Any]) -> list[dict[str, Any]]:
        numbers = range(self._patients + 1, self._patients + count + 1)
        self._patients += count
        columns: dict[str, sql.Composable] = {name: sql.Placeholder(name) for name in row}
        if "patient_name" not in row:
            columns["patient_name"] = sql.SQL("'Patient ' || number")
        return self._write(
            sql.SQL(
                "INSERT INTO medmitra.cases ({}) SELECT {}"
                " FROM generate_series(%(first)s, %(last)s) AS number RETURNING {}"
            ).format(
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.SQL(", ").join(columns.values()),
                _COLUMNS,
            ),
            {**row, "first": numbers.start, "last": numbers.stop - 1},
        )

    def _write(self, statement: sql.Composed, values: dict[str, Any]) -> list[dict[str, Any]]:
        rows = self._execute(statement, values)
        cases: list[dict[str, Any]] = _CASE.dump(
            [dict(zip(_CASE.fields, row, strict=True)) for row in rows], many=True
        )
        return cases

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
