"""Wires the wings into a Flask application."""

import logging
import os

from flask import Flask

from medmitra_cases import blueprint, docs
from medmitra_cases.auth import create_verifier
from medmitra_cases.database import Database, refuse_read_write
from medmitra_cases.settings import Settings, unknown_variables
from medmitra_cases.web import Application, cors, error_handlers

_log = logging.getLogger(__name__)


def create_database(settings: Settings) -> Database:
    """Make the database of the service, without connecting.

    Args:
        settings: The settings.

    Returns:
        The database.

    Raises:
        SettingsError: ``target_session_attrs`` is ``read-write``.
    """
    refuse_read_write(settings.database_url)
    return Database(
        settings.database_url,
        wait_seconds=settings.database_wait_seconds,
        max_connections=settings.max_connections,
        max_age_seconds=settings.connection_max_age_seconds,
    )


def create_app(settings: Settings | None = None, *, database: Database | None = None) -> Flask:
    """Make the WSGI application. It opens no connection before the first request needs one.

    Args:
        settings: The settings; None reads them from the environment of the process.
        database: The database, to be closed by the caller; None makes one that lives as long as the process.

    Returns:
        The application.

    Raises:
        SettingsError: The settings in the environment are wrong.
    """
    if settings is None:
        settings = Settings.from_environ(os.environ)
        for description in unknown_variables(os.environ):
            _log.warning("%s", description)
    if database is None:
        database = create_database(settings)
    app = Application("medmitra_cases", static_folder=None)
    # A path with doubled slashes is unknown (404), not redirected to the known one.
    app.url_map.merge_slashes = False

    verifier = create_verifier(settings)
    if verifier is None:
        _log.warning(
            "no tokens are required (neither MEDMITRA_JWT_SECRET nor MEDMITRA_JWKS_URL is set):"
            " every client that reaches this service can read the cases of any doctor whose user_id it sends"
        )

    app.register_blueprint(blueprint.create_blueprint(database, verifier, row_versions=settings.row_versions))
    if settings.docs:
        app.register_blueprint(docs.create_blueprint(needs_tokens=settings.needs_tokens))
    error_handlers.init_app(app)
    cors.init_app(app, settings.cors_origins, settings.cors_headers)
    return app
