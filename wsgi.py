"""The WSGI application for any WSGI server, such as ``waitress-serve --listen=127.0.0.1:8000 wsgi:app``."""

from medmitra_cases import create_app

app = create_app()
