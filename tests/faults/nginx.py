"""Runs nginx in front of the service, with the directives of ``deploy/nginx.conf`` that matter for faults."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs import accepts_connections, background, free_port, tool

_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;

    upstream medmitra_cases {{
        {servers}
        keepalive 16;
    }}

    server {{
        listen 127.0.0.1:{port};

        location = /cases/all_cases {{
            proxy_pass http://medmitra_cases;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Request-ID $request_id;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""


@contextmanager
def nginx(folder: Path, *ports: int) -> Iterator[int]:
    """Run nginx in front of services on these ports; yield nginx's port."""
    port = free_port()
    # With the default max_fails=1, nginx avoids a service for 10 s after one refused connection,
    # and responds 502 if all services have refused one.
    servers = "".join(f"server 127.0.0.1:{service_port} max_fails=0;" for service_port in ports)
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, servers=servers, port=port))
    command = (tool("nginx"), "-e", "stderr", "-c", configuration)
    with background(*command, is_ready=lambda: accepts_connections(port), log=folder / "nginx.log"):
        yield port
