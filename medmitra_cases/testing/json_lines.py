"""Does what lines of JSON on stdin ask for, and answers each with a line on stdout."""

import logging
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from inspect import signature
from typing import Any

import click
import msgspec

from medmitra_cases.errors import MedmitraCasesError

_log = logging.getLogger(__name__)


def run_commands(commands: Mapping[str, Callable[..., object]]) -> None:
    """Answer each line until there are no more; then end this process with SIGTERM.

    Args:
        commands: What may be asked for, by name. Each takes named arguments, and returns what JSON has.
    """
    try:
        # Not sys.stdin: its lock, which a thread that reads holds, makes Python abort when it ends. There may
        # be no stdin, and nobody who reads what is said.
        with suppress(OSError), open(0, "rb", closefd=False) as requests:
            for line in requests:
                say(_answer(line, commands))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def say(what: object) -> None:
    """Write a line of JSON to stdout.

    Args:
        what: Anything that JSON has.

    Raises:
        OSError: Nobody reads it.
    """
    click.echo(msgspec.json.encode(what))


def _answer(line: bytes, commands: Mapping[str, Callable[..., object]]) -> dict[str, object]:
    answer: dict[str, object] = {}
    try:
        request = msgspec.json.decode(line, type=dict[str, Any])
        if "id" in request:
            answer["id"] = request.pop("id")
        ((name, arguments),) = request.items()
        command = partial(commands[name], **arguments)
        signature(command).bind()
    except (ValueError, KeyError, TypeError):
        wanted = ", ".join(commands)
        return {**answer, "error": f'a line must be {{"…": {{…}}}}: one of {wanted}, and its arguments'}
    try:
        return {**answer, "result": command()}
    except MedmitraCasesError as error:
        return {**answer, "error": str(error)}
    except Exception as error:  # a tool for tests outlives what they find
        _log.exception("%s failed", name)
        return {**answer, "error": f"{type(error).__name__}: {error}"}
