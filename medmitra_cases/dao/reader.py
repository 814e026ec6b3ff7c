"""Reads the cases of one request, with the retries that its time allows."""

from medmitra_cases.dao.batches import CaseBatches
from medmitra_cases.dao.fetch import fetch_row_version
from medmitra_cases.dao.statements import BoundQuery
from medmitra_cases.dao.whole import fetch_cases
from medmitra_cases.database import Database
from medmitra_cases.models import CaseQuery, Cases, Version


class CaseReader:
    """Reads the cases of one query. Each method is one read, tried again if the connection is lost.

    Each may raise DatabaseUnavailable, QueryTimedOut, DatabaseError, DataRefused, or UnknownCursor if the
    doctor has no case ``after``.

    Attributes:
        query: The query.
    """

    def __init__(
        self,
        database: Database,
        query: CaseQuery,
        *,
        subject: str,
        row_versions: bool | None,
        received_at: float,
    ) -> None:
        """Bind the query; nothing is read yet.

        Args:
            database: The database.
            query: The query.
            subject: The UUID of the doctor who asks. The database shows no other doctor's cases.
            row_versions: Whether versions are made of the versions of the rows; None if the definition of
                ``medmitra.cases`` decides.
            received_at: When the request arrived, in seconds of the monotonic clock; retries count from it.
        """
        self.query = query
        self._bound = BoundQuery(query, subject, row_versions)
        self._database = database
        self._received_at = received_at

    def version(self) -> Version | None:
        """Read the version of the cases, without the cases.

        Returns:
            The version; None if only the cases themselves can tell it.
        """
        return self._database.read(self._received_at, fetch_row_version, self._bound)

    def whole(self, max_rows: int) -> tuple[Cases, Version] | None:
        """Read all cases, unless they are too many or too large.

        Args:
            max_rows: The maximum number of cases.

        Returns:
            The cases and their version; None if there are more than ``max_rows``, or if they are too large.
        """
        return self._database.read(self._received_at, fetch_cases, self._bound, max_rows)

    def batches(self, size: int) -> CaseBatches:
        """Open a cursor over the cases.

        Args:
            size: The maximum number of cases in a batch.

        Returns:
            The batches, to be closed by the caller.
        """
        return self._database.read(self._received_at, CaseBatches, self._bound, size)
