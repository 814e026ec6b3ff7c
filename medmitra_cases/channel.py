"""How an answer leaves where waitress's own way is not ours: error bodies, and system calls.

This is the one module that builds on waitress's internals; setup.cfg bounds its version for that reason.
"""

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask, WSGITask

from medmitra_cases.error_handlers import error_body


class _JsonErrorTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """Refuses what never reaches the application, such as an unreadable request line, with our error body."""

    def execute(self) -> None:
        error = self.request.error
        body = error_body("Internal server error: unexpected error" if error.code == 500 else error.body)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.content_length = len(body)
        self.set_close_on_finish()
        self.write(body)


class _Task(WSGITask):  # type: ignore[misc]
    """Sends an answer that is whole with one system call, where waitress sends header and body with two."""

    wrote_header: bool

    def write(self, data: bytes) -> None:
        if self.wrote_header or not self.has_body or self.content_length != len(data):
            super().write(data)
            return
        self.channel.write_soon(self.build_response_header() + data)
        self.wrote_header = True
        self.content_bytes_written = len(data)


class Channel(HTTPChannel):  # type: ignore[misc]
    """One client's connection."""

    error_task_class = _JsonErrorTask
    task_class = _Task
