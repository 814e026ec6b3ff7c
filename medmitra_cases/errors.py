"""The errors this service raises on purpose, and the words a client may read about each."""

from typing import ClassVar

from marshmallow import ValidationError


class MedmitraCasesError(Exception):
    """Base of every error below."""


class SettingsError(MedmitraCasesError):
    """The settings are wrong. The message names every mistake in one line and repeats no value."""


class SqlFileError(MedmitraCasesError):
    """A file of ``sql/`` is missing, unreadable, or not what its name says. The message names it."""


class ListenError(MedmitraCasesError):
    """The address cannot be listened on. The message names it and says why, in one line."""


class EmbeddedPostgresError(MedmitraCasesError):
    """The embedded Postgres could not be started. The message says why, in one line."""


class TokenMissing(MedmitraCasesError):
    """The request carries no bearer token."""


class TokenInvalid(MedmitraCasesError):
    """The request's bearer token does not hold. The message says which check failed and quotes nothing."""


class OtherDoctor(MedmitraCasesError):
    """The request's token is not that of the doctor whose cases it asks for."""


class UnknownCursor(MedmitraCasesError):
    """The case that the list is to go on after is none of this doctor's."""


class Fault(MedmitraCasesError):
    """The service cannot do its work.

    Attributes:
        public_text: What failed, in fixed words that name no host, no SQL and no data. Clients read it.
    """

    public_text: ClassVar[str]

    def log_text(self) -> str:
        """Tell what happened, for the log.

        Returns:
            One line. It may name hosts and hold SQL, but no data of a request or a patient.
        """
        return self.public_text


class Overloaded(Fault):
    """The request has waited for a thread for so long that its client has probably left."""

    public_text = "overloaded"


class KeysUnavailable(Fault):
    """The key that a token names cannot be had from the issuer, or not be told from one that is made up."""

    public_text = "signing keys unavailable"


class DatabaseError(Fault):
    """The database failed a read. The psycopg2 error is its ``__cause__``."""

    public_text = "unexpected database error"

    def log_text(self) -> str:
        """Tell what happened, for the log.

        Returns:
            The public text, and what libpq or the server says. No traceback: in an outage all are the same.
        """
        # Of what a server says, not the line of the statement: what was searched for is in it.
        diagnosis = getattr(self.__cause__, "diag", None)
        said = (diagnosis and diagnosis.message_primary) or str(self.__cause__)
        cause = " ".join(said.split())
        return f"{self.public_text} ({type(self.__cause__).__qualname__}: {cause or 'no answer in time'})"


class DatabaseUnavailable(DatabaseError):
    """No connection could be had, or it was lost, for as long as a request may wait."""

    public_text = "database unavailable"


class QueryTimedOut(DatabaseError):
    """The query ran longer than the role's ``statement_timeout``: the database ended it, or should have."""

    public_text = "query timed out"


class DataRefused(DatabaseError):
    """The database refused the request's own data (SQLSTATE class 22, data exception).

    Attributes:
        sqlstate: The five characters of the SQLSTATE.
    """

    public_text = "the database refused the data of this request"

    def __init__(self, sqlstate: str) -> None:
        """Keep the SQLSTATE, which can be logged where the database's message cannot.

        Args:
            sqlstate: The five characters of the SQLSTATE.
        """
        super().__init__(sqlstate)
        self.sqlstate = sqlstate

    def log_text(self) -> str:
        """Tell what happened, for the log.

        Returns:
            The public text and the SQLSTATE: the messages of class 22 quote the value that was refused.
        """
        return f"{self.public_text} (SQLSTATE {self.sqlstate})"


class BrokenOff(MedmitraCasesError):
    """An answer that has begun cannot be completed, so the server must end the transfer. The log says why."""


def describe_invalid(error: ValidationError) -> str:
    """Say in one line what is wrong with which name, without repeating a value.

    Args:
        error: What a schema of flat fields raised; its messages continue a sentence begun with the name.

    Returns:
        For example ``user_id is missing``; several mistakes are joined by ``; ``.
    """
    return "; ".join(
        f"{name} {message}" for name, messages in error.messages_dict.items() for message in messages
    )
