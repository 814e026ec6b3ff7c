"""The application of the admin listener: liveness, readiness and metrics."""

from collections.abc import Callable

from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from medmitra_cases.admin.readiness import Readiness
from medmitra_cases.contract import __version__
from medmitra_cases.telemetry import metrics
from medmitra_cases.web import Application, error_handlers


def create_admin_app(readiness: Readiness, draining: Callable[[], bool]) -> Flask:
    """Create the application for probes and Prometheus. Its responses contain no patient data.

    Args:
        readiness: The check of the database.
        draining: A function that returns whether the process is about to end.

    Returns:
        The application.
    """
    app = Application("medmitra_cases.admin", static_folder=None)
    metrics.BUILD.info({"version": __version__})

    @app.get("/livez")
    def livez() -> Response:
        """Return 200: the process runs, and so does its I/O loop. Nothing else is checked."""
        return _ok("alive")

    @app.get("/readyz")
    def readyz() -> Response:
        """Return 200 if requests for cases would succeed, else 503."""
        problem = "draining" if draining() else readiness.problem()
        if problem is not None:
            return error_handlers.error_response(503, problem)
        return _ok("ready")

    @app.get("/metrics")
    def all_metrics() -> Response:
        """Return the metrics in the text format of Prometheus."""
        return Response(generate_latest(metrics.REGISTRY), content_type=CONTENT_TYPE_LATEST)

    error_handlers.init_app(app)
    return app


def _ok(status: str) -> Response:
    return Response(f'{{"status":"{status}"}}', content_type="application/json")
