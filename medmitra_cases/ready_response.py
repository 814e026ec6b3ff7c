"""A response that leaves as it is."""

from typing import Any

from flask import Response
from werkzeug.datastructures import Headers


class ReadyResponse(Response):
    """A response with just the headers it is given: looking for what to add or mend costs every request."""

    default_mimetype = None

    def get_wsgi_headers(self, _environ: dict[str, Any]) -> Headers:
        """Return the headers as they are.

        Returns:
            The headers.
        """
        return self.headers
