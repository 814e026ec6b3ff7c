"""The admin listener's application: is the process alive, can it serve, and how is it doing?"""

from collections.abc import Callable

from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from medmitra_cases.admin.readiness import Readiness
from medmitra_cases.contract import __version__
from medmitra_cases.telemetry import metrics
from medmitra_cases.web import Application, error_handlers, headers


def create_admin_app(readiness: Readiness, draining: Callable[[], bool]) -> Flask:
    """Make the application that probes and Prometheus ask. None of its answers holds anything of a patient.

    Args:
        readiness: Tells whether the database answers.
        draining: Tells whether the process is about to end.

    Returns:
        The application.
    """
    app = Application("medmitra_cases.admin", static_folder=None)
    metrics.BUILD.info({"version": __version__})

    @app.get("/livez")
    def livez() -> Response:
        """Tell that the process runs and its I/O loop goes round. Touches nothing else."""
        return _last_logged("alive")

    @app.get("/readyz")
    def readyz() -> Response:
        """Tell whether requests would be answered with cases."""
        problem = "draining" if draining() else readiness.problem()
        if problem is not None:
            return error_handlers.error_response(503, problem)
        return _last_logged("ready")

    @app.get("/metrics")
    def all_metrics() -> Response:
        """Give the metrics in Prometheus's text format."""
        return Response(generate_latest(metrics.REGISTRY), content_type=CONTENT_TYPE_LATEST)

    error_handlers.init_app(app)
    headers.init_app(app)
    return app


def _last_logged(status: str) -> Response:
    return Response(f'{{"status":"{status}"}}', content_type="application/json")
