"""Start the service with a Unix socket, as systemd does: sd_listen_fds(3). The argument is its path."""

import os
import socket
import sys
from pathlib import Path

path = Path(sys.argv[1])
path.unlink(missing_ok=True)  # of a process that was killed
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(path))
path.chmod(0o666)  # nginx is another user; only containers with the volume have the path
listener.listen(1024)  # connections that wait while the service starts
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp("medmitra-cases", ["medmitra-cases", "serve"])  # noqa: S606, S607, the image has it in PATH
