"""Executes commands, one line of JSON each, from stdin, and writes their results to stdout."""

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
    """Execute the commands on stdin until its end. Then send this process SIGTERM.

    Args:
        commands: The functions by command name. Each takes keyword arguments and returns a JSON value.
    """
    try:
        # Not sys.stdin: Python aborts at exit if a reading thread holds its lock. OSError means that stdin is
        # missing or stdout is closed.
        with suppress(OSError), open(0, "rb", closefd=False) as lines:
            for line in lines:
                write_json_line(_execute(line, commands))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def write_json_line(value: object) -> None:
    """Write a JSON value as a line to stdout; OSError if that is closed."""
    click.echo(msgspec.json.encode(value))


def _execute(line: bytes, commands: Mapping[str, Callable[..., object]]) -> dict[str, object]:
    reply: dict[str, object] = {}
    try:
        request = msgspec.json.decode(line, type=dict[str, Any])
        if "id" in request:
            reply["id"] = request.pop("id")
        ((name, arguments),) = request.items()
        command = partial(commands[name], **arguments)
        signature(command).bind()
    except (ValueError, KeyError, TypeError):
        names = ", ".join(commands)
        return {**reply, "error": f'a line must be {{"COMMAND": {{ARGUMENTS}}}}; the commands are {names}'}
    try:
        return {**reply, "result": command()}
    except MedmitraCasesError as error:
        return {**reply, "error": str(error)}
    except Exception as error:  # the harness must keep running for the next test
        _log.exception("%s failed", name)
        return {**reply, "error": f"{type(error).__name__}: {error}"}
