"""Runs the real nginx with a site of ``deploy/``, with TLS and a self-signed certificate."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.parts import get, run_command, with_replacements
from tests.support.factories import DOCTOR
from tests.support.processes import TIMEOUT_SECONDS, receive_all
from tests.support.programs import accepts_connections, background, free_port, tool

PATH = "/cases/all_cases"
TARGET = f"{PATH}?user_id={DOCTOR}"
GET = f"GET {TARGET} HTTP/1.1"
ALLOWED_ORIGIN = "https://app.example"
# nginx limits the request rate of each address, so each test that exceeds the limit uses a separate address.
ADDRESS, CASES_ADDRESS, DOCS_ADDRESS = "127.0.0.5", "127.0.0.6", "127.0.0.7"

# Replaces the distribution's nginx.conf. nginx makes a subfolder for its first temporary file (level 1). The
# subfolder stays, so an empty folder proves that there was no temporary file.
MAIN_CONF = """
user nobody nogroup;
pid nginx.pid;
events {}
http {
    proxy_temp_path proxied 1;
    client_body_temp_path bodies 1;
    access_log off;
    include site.conf;
}
"""


class Nginx:
    """A running nginx."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._tls_context = ssl.create_default_context(cafile=folder / "api.example.pem")

    def connect(self, address: str = ADDRESS, receive_buffer: int = 0) -> ssl.SSLSocket:
        connection = socket.socket()
        connection.settimeout(TIMEOUT_SECONDS)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.bind((address, 0))
        connection.connect(("127.0.0.1", self.port))
        return self._tls_context.wrap_socket(connection, server_hostname="api.example")

    def get(
        self, target: str, address: str = ADDRESS, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("api.example")
        connection.sock = self.connect(address)
        return get(connection, target, **headers)

    def send(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send raw bytes; return the status, the header fields and the body."""
        with self.connect() as connection:
            connection.sendall(raw)
            head, _, body = receive_all(connection).decode().partition("\r\n\r\n")
        status, *fields = head.split("\r\n")
        return int(status.split()[1]), dict(field.split(": ", 1) for field in fields), body.encode()

    def command(self, *options: str) -> list[str]:
        """Return the nginx command for this configuration."""
        files = ("-p", self.folder, "-c", "main.conf", "-e", self.folder / "error.log")
        return [tool("nginx"), *map(str, files), *options]

    def access_log(self) -> list[str]:
        return (self.folder / "access.log").read_text().splitlines()


@contextmanager
def run_nginx(
    folder: Path, socket_path: str | Path, site: str = "nginx.conf", **replacements: str
) -> Iterator[Nginx]:
    """Run nginx with a site of ``deploy/`` and a self-signed certificate."""
    port = free_port()
    certificate, key = folder / "api.example.pem", folder / "api.example.key"
    run_command(
        *(tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "1", "-subj", "/CN=api.example", "-addext", "subjectAltName=DNS:api.example"),
        *("-keyout", key, "-out", certificate),
    )
    all_replacements = {
        "unix:/run/medmitra-cases/http.sock": f"unix:{socket_path}",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "listen [::]:443 ssl;": "",
        "/etc/nginx/tls/api.example.pem": str(certificate),
        "/etc/nginx/tls/api.example.key": str(key),
        "/var/log/nginx/medmitra-cases.access.log": str(folder / "access.log"),
        **replacements,
    }
    (folder / "site.conf").write_text(with_replacements(site, all_replacements))
    (folder / "main.conf").write_text(MAIN_CONF)
    nginx = Nginx(folder, port)
    command = nginx.command("-g", "daemon off;")
    with background(*command, is_ready=lambda: accepts_connections(port), log=folder / "start.log"):
        yield nginx
    assert "emerg" not in (folder / "error.log").read_text()


@contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)  # nginx's workers run as nobody here; test_systemd.py tests the group's permission
        listener.listen()
        yield listener


def request(line: str, *fields: str, body: str = "") -> bytes:
    return "\r\n".join([line, "Host: api.example", "Connection: close", *fields, "", body]).encode()
