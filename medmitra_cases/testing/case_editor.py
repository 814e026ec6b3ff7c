"""Puts cases into a database as a test wants them."""

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


class _CaseToStore(CaseSchema):
    """A case as it is to be, of which some keys may be left out."""

    class Meta:
        """Options read by marshmallow."""

        unknown = RAISE

    error_messages = {"unknown": "is not a key of a case"}  # noqa: RUF012, as marshmallow has it
    case_id = uuid("The case's UUID.", required=True)
    user_id = uuid("The doctor's UUID.", required=True)
    patient_age = fields.Integer(required=True, strict=True)


_CASE = _CaseToStore()
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, _CASE.fields))


class Refused(MedmitraCasesError):
    """What is asked for cannot be done. The message says why, in one line."""


class CaseEditor:
    """Inserts, changes and deletes cases in ``medmitra.cases``."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """Connect.

        Args:
            connect: Opens an autocommit connection that may write the table; called again when that is lost.

        Raises:
            psycopg2.Error: The database cannot be reached.
        """
        self._connect = connect
        self._connection = connect()
        self._serial = itertools.count(1)

    def add_case(self, /, **values: Any) -> dict[str, Any]:
        """Insert a case.

        Args:
            **values: Its keys, ``user_id`` among them. Where they are missing, name, age and gender are made
                up, and the rest is left to the table's defaults.

        Returns:
            The case as the service answers with it.

        Raises:
            Refused: A value is missing, unknown or wrong.
        """
        made_up = {
            "patient_name": f"Patient {next(self._serial)}",
            "patient_age": 40,
            "patient_gender": "female",
        }
        wanted = _load({**made_up, **values}, "user_id")
        return self._one(
            sql.SQL("INSERT INTO medmitra.cases ({}) VALUES ({}) RETURNING {}").format(
                sql.SQL(", ").join(map(sql.Identifier, wanted)),
                sql.SQL(", ").join(map(sql.Placeholder, wanted)),
                _COLUMNS,
            ),
            wanted,
        )

    def update_case(self, /, **values: Any) -> dict[str, Any]:
        """Change a case.

        Args:
            **values: Its ``case_id``, and what is to change.

        Returns:
            The case as the service now answers with it.

        Raises:
            Refused: There is no such case, or a value is unknown or wrong.
        """
        wanted = _load(values, "case_id")
        changes = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in wanted]
        return self._one(
            sql.SQL("UPDATE medmitra.cases SET {} WHERE case_id = %(case_id)s RETURNING {}").format(
                sql.SQL(", ").join(changes), _COLUMNS
            ),
            wanted,
        )

    def clear(self) -> None:
        """Delete all cases.

        Raises:
            Refused: Somebody holds one.
        """
        # Not TRUNCATE: it waits for whoever reads, be it a client who left an answer half-way.
        self._execute("DELETE FROM medmitra.cases")

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _one(self, statement: sql.Composed, values: dict[str, Any]) -> dict[str, Any]:
        rows = self._execute(statement, values)
        if not rows:
            raise Refused("there is no such case")
        case: dict[str, Any] = _CASE.dump(dict(zip(_CASE.fields, rows[0], strict=True)))
        return case

    def _execute(self, statement: sql.Composed | str, values: Any = None) -> list[tuple[Any, ...]]:
        try:
            with self._live_connection().cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.errors.LockNotAvailable:
            raise Refused("a transaction that has not ended holds cases: commit it or roll it back") from None
        except psycopg2.Error as error:
            said = error.diag.message_primary or str(error).partition("\n")[0]
            raise Refused(f"the database says: {said}") from error
        except ValueError as error:  # a text with the character U+0000, which Postgres has not
            raise Refused(str(error)) from error

    def _live_connection(self) -> Connection:
        # A test may have ended it, to see what its dashboard makes of an outage.
        with suppress(psycopg2.Error), self._connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return self._connection
        self._connection.close()
        self._connection = self._connect()
        return self._connection


def _load(values: dict[str, Any], required: str) -> dict[str, Any]:
    others = [name for name in _CASE.fields if name != required]
    try:
        wanted: dict[str, Any] = _CASE.load(values, partial=others)
    except ValidationError as error:
        raise Refused(describe_invalid(error)) from None
    return wanted
