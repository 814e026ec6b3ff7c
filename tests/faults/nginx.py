"""nginx in front of the service, with what of ``deploy/nginx.conf`` has to do with faults."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs import accepts, background, free_port, tool

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
    """Run it in front of services on these ports; yields its own."""
    port = free_port()
    # As it is, who once refused a connection is left alone for 10 s, and if all have there is a 502.
    servers = "".join(f"server 127.0.0.1:{each} max_fails=0;" for each in ports)
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, servers=servers, port=port))
    command = (tool("nginx"), "-e", "stderr", "-c", configuration)
    with background(*command, up=lambda: accepts(port), log=folder / "nginx.log"):
        yield port
