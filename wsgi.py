"""The WSGI application for any WSGI server, such as ``waitress-serve --listen=127.0.0.1:8000 wsgi:app``."""

import os

import medmitra_cases

# Meant for another program: with it, prometheus_client would keep the metrics in files of that folder.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
app = medmitra_cases.create_app()
