"""What the service counts and measures of itself, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

# Seconds. A short list takes one or two milliseconds, 10,000 cases a hundred; a request may wait 3 s for a
# database that is gone, and a query run for 5 s by the role's statement_timeout.
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 3.5, 5, 10)
_DATABASE_BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 2.5, 5, 7.5)

# Of this process alone: each has an admin listener of its own. It also says what the process costs, in memory
# (process_resident_memory_bytes), descriptors (process_open_fds) and processor time.
REGISTRY = CollectorRegistry()
disable_created_metrics()  # type: ignore[no-untyped-call]  # they say when each began
ProcessCollector(registry=REGISTRY)

REQUEST_SECONDS = Histogram(
    "medmitra_http_request_seconds",
    "From a request having arrived whole until its answer was ready to be sent, by route and status; the"
    " status of a long list that did not get to its end is broken_off.",
    ("route", "status"),
    buckets=_REQUEST_BUCKETS,
    registry=REGISTRY,
)
REQUESTS_IN_FLIGHT = Gauge(
    "medmitra_http_requests_in_flight",
    "Connections with a request that waits for a thread or is worked on, or with an answer not sent yet.",
    registry=REGISTRY,
)
DATABASE_SECONDS = Histogram(
    "medmitra_database_seconds",
    "How long Postgres took to answer, for each statement.",
    buckets=_DATABASE_BUCKETS,
    registry=REGISTRY,
)
DATABASE_RETRIES = Counter(
    "medmitra_database_retries",
    "Reads tried again: the connection was lost, or could not be had.",
    registry=REGISTRY,
)
CONNECTIONS_OPEN = Gauge("medmitra_database_connections_open", "Connections to Postgres.", registry=REGISTRY)
CONNECTIONS_BUSY = Gauge(
    "medmitra_database_connections_busy",
    "Connections with a statement that Postgres has not answered yet.",
    registry=REGISTRY,
)
CASES = Counter("medmitra_cases_returned", "Cases handed over for sending.", registry=REGISTRY)
BUILD = Info("medmitra_build", "The version of the service.", registry=REGISTRY)
