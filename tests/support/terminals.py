"""Runs the real command on a terminal of its own."""

import os
import pty
import subprocess

from tests.support.processes import COMMAND, environment


def run_on_terminal(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command to its end; returns its exit status and all that the terminal was sent."""
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(
            [COMMAND, *arguments],
            env=environment(**{"TERM": "xterm", "NO_COLOR": "", **variables}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process,
    ):
        os.close(theirs)
        shown = b""
        try:
            while received := terminal.read(65_536):
                shown += received
        except OSError:  # so says Linux that nobody has the other end any more
            pass
        return process.wait(), shown.decode()
