"""The Prometheus metrics of the service."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

# Seconds. A short list takes 1 or 2 ms, 10,000 cases 100 ms. A request may wait 3 s for an unreachable
# database, and the role's statement_timeout lets a query run for 5 s.
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 3.5, 5, 10)
_DATABASE_BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 2.5, 5, 7.5)

# The metrics of this process only: each process has its own admin listener. ProcessCollector adds memory
# (process_resident_memory_bytes), file descriptors (process_open_fds) and processor time.
REGISTRY = CollectorRegistry()
disable_created_metrics()  # type: ignore[no-untyped-call]  # the start time of each metric
ProcessCollector(registry=REGISTRY)

REQUEST_SECONDS = Histogram(
    "medmitra_http_request_seconds",
    "Time from the complete arrival of a request until its response was ready to be sent, by route and"
    " status; the status of a long list that could not be completed is broken_off. If the service failed,"
    " error is the kind of the failure.",
    ("route", "status", "error"),
    buckets=_REQUEST_BUCKETS,
    registry=REGISTRY,
)
REQUESTS_IN_FLIGHT = Gauge(
    "medmitra_http_requests_in_flight",
    "Connections whose request waits or is in progress, or whose response is not sent yet.",
    registry=REGISTRY,
)
DATABASE_SECONDS = Histogram(
    "medmitra_database_seconds",
    "Response time of Postgres, for each statement.",
    buckets=_DATABASE_BUCKETS,
    registry=REGISTRY,
)
DATABASE_RETRIES = Counter(
    "medmitra_database_retries",
    "Retries of reads, after the connection was lost or could not be opened.",
    registry=REGISTRY,
)
CONNECTIONS_OPEN = Gauge("medmitra_database_connections_open", "Connections to Postgres.", registry=REGISTRY)
CONNECTIONS_BUSY = Gauge(
    "medmitra_database_connections_busy",
    "Connections that wait for the response of Postgres to a statement.",
    registry=REGISTRY,
)
CASES = Counter("medmitra_cases_returned", "Cases that were passed on for sending.", registry=REGISTRY)
LOG_LINES_LOST = Counter(
    "medmitra_log_lines_lost",
    "Lines of the log and the audit that were not written, because stderr accepted no data.",
    registry=REGISTRY,
)
BUILD = Info("medmitra_build", "The version of the service.", registry=REGISTRY)
