"""Serves the application with waitress, set up to stand behind a reverse proxy."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server
from waitress.task import ErrorTask

from medmitra_cases.error_handlers import error_body
from medmitra_cases.errors import ListenError
from medmitra_cases.settings import Settings


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


class _Channel(HTTPChannel):  # type: ignore[misc]
    error_task_class = _JsonErrorTask


class Server:
    """A waitress server that accepts connections; ``run`` answers them.

    Attributes:
        urls: The addresses listened on, such as ``http://127.0.0.1:8000``, with the port really taken.
    """

    def __init__(self, app: Flask, settings: Settings) -> None:
        """Listen on ``settings.listen``.

        Args:
            app: The application.
            settings: ``listen``, ``threads`` and ``keepalive_seconds`` are used.

        Raises:
            ListenError: The address is in use, not this machine's, or does not resolve.
        """
        # It warns of every request that waits for a thread; under load that is most of them.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        dispatchers: dict[int, Any] = {}
        try:
            self._waitress = create_server(
                app,
                map=dispatchers,
                listen=settings.listen,
                threads=settings.threads,
                channel_timeout=settings.keepalive_seconds,
                ident="",  # no Server header: it tells strangers what to look for
                # Only the proxy on this machine may name the client; from others these headers are dropped.
                trusted_proxy="127.0.0.1",
                trusted_proxy_headers={"x-forwarded-for", "x-forwarded-proto"},
                clear_untrusted_proxy_headers=True,
                connection_limit=1000,  # connections; further clients wait unanswered in the backlog
                asyncore_use_poll=True,  # select() crashes the server above descriptor 1,024
                max_request_header_size=262_144,  # bytes; more is answered with 431
                max_request_body_size=65_536,  # bytes; no GET needs that much, more is answered with 413
                # Bytes of unsent output held in memory; waitress writes more than that to a temporary file,
                # and patient data does not belong on disk.
                outbuf_overflow=1 << 30,
            )
        except OSError as error:
            raise ListenError(f"cannot listen on {settings.listen}: {error.strerror}") from error
        except ValueError as error:
            raise ListenError(f"cannot listen on {settings.listen}: no such host") from error
        # One for each address: localhost may be two.
        listeners = [found for found in dispatchers.values() if isinstance(found, BaseWSGIServer)]
        self.urls = []
        for listener in listeners:
            listener.channel_class = _Channel
            host = listener.effective_host
            self.urls.append(f"http://{f'[{host}]' if ':' in host else host}:{listener.effective_port}")

    def run(self) -> None:
        """Answer requests until ``KeyboardInterrupt`` or ``SystemExit`` is raised; then return.

        Requests being worked on get 5 s to end, as waitress has it.
        """
        self._waitress.run()


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like ``sys.exit()``, so that what it opened is closed."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    # What is ignored stays so: nohup asks for that.
    heeded = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, leave) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
