"""Wires the parts into a Flask application."""

import logging
import os

from flask import Flask

from medmitra_cases import blueprint, docs
from medmitra_cases.auth import create_verifier
from medmitra_cases.database import Database
from medmitra_cases.settings import Settings
from medmitra_cases.web import Application, cors, error_handlers, headers

DATABASE = "medmitra_cases.database"

_log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> Flask:
    """Make the WSGI application. It opens no connection before the first request needs one.

    Args:
        settings: The settings; read from the process's environment when left out.

    Returns:
        The application; its ``Database`` is ``app.extensions[DATABASE]``.

    Raises:
        SettingsError: The environment's settings are wrong.
    """
    if settings is None:
        settings = Settings.from_environ(os.environ)
    app = Application("medmitra_cases", static_folder=None)
    # A path with doubled slashes is unknown (404), not redirected to the known one.
    app.url_map.merge_slashes = False

    database = Database(settings.database_url, wait_seconds=settings.database_wait_seconds)
    app.extensions[DATABASE] = database

    verifier = create_verifier(settings)
    if verifier is None:
        _log.warning(
            "no tokens are asked for (MEDMITRA_JWT_SECRET, MEDMITRA_JWKS_URL):"
            " anyone who reaches this service can read any doctor's cases by naming the user_id"
        )

    app.register_blueprint(blueprint.create_blueprint(database, verifier, row_versions=settings.row_versions))
    if settings.docs:
        app.register_blueprint(docs.create_blueprint(needs_tokens=settings.needs_tokens))
    error_handlers.init_app(app)
    headers.init_app(app)
    cors.init_app(app, settings.cors_origins)
    return app
