"""Runs the real command on a pseudo-terminal."""

import os
import pty
import subprocess

from tests.support.processes import COMMAND, environment


def run_on_terminal(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command until it ends; return its exit status and everything that it wrote to the terminal."""
    controller, terminal = pty.openpty()
    with (
        os.fdopen(controller, "rb", buffering=0) as output,
        subprocess.Popen(
            [COMMAND, *arguments],
            env=environment(**{"TERM": "xterm", "NO_COLOR": "", **variables}),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        ) as process,
    ):
        os.close(terminal)
        written = b""
        try:
            while received := output.read(65_536):
                written += received
        except OSError:  # Linux reports EIO when the command has closed the terminal
            pass
        return process.wait(), written.decode()
