"""The exceptions of this service, and the texts about them that a client may read."""

from typing import ClassVar

from marshmallow import ValidationError


class MedmitraCasesError(Exception):
    """Base class of all exceptions of this service."""


class SettingsError(MedmitraCasesError):
    """The settings are wrong. The message names every mistake in one line, without the values."""


class SqlFileError(MedmitraCasesError):
    """A file of ``sql/`` is missing, unreadable, or does not begin with its name. The message names it."""


class ListenError(MedmitraCasesError):
    """The server cannot listen on an address. The message names the address and the reason in one line."""


class EmbeddedPostgresError(MedmitraCasesError):
    """The embedded Postgres does not start. The message gives the reason in one line."""


class TokenMissing(MedmitraCasesError):
    """The request carries no bearer token."""


class TokenInvalid(MedmitraCasesError):
    """The request's bearer token is invalid. The message names the failed check, and quotes nothing."""


class OtherDoctor(MedmitraCasesError):
    """The request's token belongs to another doctor than the requested cases."""


class UnknownCursor(MedmitraCasesError):
    """The doctor has no case with the id of the cursor."""


class Fault(MedmitraCasesError):
    """The service cannot process the request. This class itself stands for every other exception.

    Attributes:
        public_text: The failure in a constant text for clients, without hosts, SQL or data.
        kind: The failure as one word for the metrics and the audit. It never changes, because alerts name it.
    """

    public_text: ClassVar[str] = "unexpected error"
    kind: ClassVar[str] = "unexpected_error"

    def log_text(self) -> str:
        """Return the failure in one line for the log.

        Returns:
            A text that can name hosts and contain SQL, but no data of a request or a patient.
        """
        return self.public_text


class Overloaded(Fault):
    """The request could not run for seconds, because others use all places or all memory for output."""

    public_text = "overloaded"
    kind = "overloaded"


class KeysUnavailable(Fault):
    """The service cannot find out whether the issuer has the key that a token names."""

    public_text = "signing keys unavailable"
    kind = "signing_keys_unavailable"


class DatabaseError(Fault):
    """A read of the database failed. The ``__cause__`` is the error of psycopg2."""

    public_text = "unexpected database error"
    kind = "unexpected_database_error"

    def log_text(self) -> str:
        """Return the public text and the message of libpq or the server, without a traceback."""
        # Only the primary message is logged. The statement can contain search text.
        diagnosis = getattr(self.__cause__, "diag", None)
        message = (diagnosis and diagnosis.message_primary) or str(self.__cause__)
        if diagnosis and (diagnosis.sqlstate or "").startswith("22"):
            message = (
                f"SQLSTATE {diagnosis.sqlstate}, a value in the database"  # the message quotes the value
            )
        cause = " ".join(message.split())
        return f"{self.public_text} ({type(self.__cause__).__qualname__}: {cause or 'no response in time'})"


class UnservableColumn(DatabaseError):
    """A column of ``medmitra.cases`` has a type or a value that no response can contain."""

    def __init__(self, column: str, reason: str) -> None:
        """Keep the reason for the log.

        Args:
            column: The name of the column.
            reason: The reason, without a value of the column.
        """
        super().__init__(column, reason)
        self._cause = f"medmitra.cases.{column}: {reason}; see medmitra-cases check"

    def log_text(self) -> str:
        """Return the public text, the column and the reason."""
        return f"{self.public_text} ({self._cause})"


class DatabaseUnavailable(DatabaseError):
    """There was no working connection for as long as a request may wait."""

    public_text = "database unavailable"
    kind = "database_unavailable"


class QueryTimedOut(DatabaseError):
    """The query exceeded the ``statement_timeout`` of its role, whether or not the database cancelled it."""

    public_text = "query timed out"
    kind = "query_timed_out"


class DataRefused(DatabaseError):
    """The database refused data of the request: a character that its encoding does not have.

    Attributes:
        sqlstate: The five characters of the SQLSTATE.
    """

    public_text = "the database refused the data of this request"
    kind = "data_refused"

    def __init__(self, sqlstate: str) -> None:
        """Keep the SQLSTATE for the log.

        Args:
            sqlstate: The five characters of the SQLSTATE.
        """
        super().__init__(sqlstate)
        self.sqlstate = sqlstate

    def log_text(self) -> str:
        """Return the public text and the SQLSTATE: the messages of class 22 quote the refused value."""
        return f"{self.public_text} (SQLSTATE {self.sqlstate})"


class BrokenOff(MedmitraCasesError):
    """The server cannot complete a response that has begun, and must abort the transfer. The log says why.

    Attributes:
        kind: The kind of the failure, as ``Fault`` has it.
    """

    def __init__(self, kind: str) -> None:
        """Keep the kind.

        Args:
            kind: The kind of the failure.
        """
        super().__init__(kind)
        self.kind = kind


def describe_invalid(error: ValidationError) -> str:
    """Describe the mistakes that a schema found in one line, without the values.

    Args:
        error: The error of a schema of flat fields. Each message continues a sentence that a name begins.

    Returns:
        For example ``user_id is missing``. Several mistakes are joined with ``; ``.
    """
    return "; ".join(
        f"{name} {message}" for name, messages in error.messages_dict.items() for message in messages
    )


def printable(text: str) -> str:
    """Replace the characters that a terminal could interpret.

    Args:
        text: A text from a server or a setting.

    Returns:
        The text with a question mark for each of them.
    """
    return "".join(character if character.isprintable() else "?" for character in text)
