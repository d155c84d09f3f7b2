"""Prometheus metrics of the service."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUERIES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
    """Metrics of one application, in a collector registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "cots_requests", "Answered requests.", ["route", "method", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "cots_request_seconds", "From request to answer.", ["route"], buckets=SECONDS, registry=self._registry
        )
        self.in_flight = Gauge("cots_queries_in_flight", "Queries that are being answered.", registry=self._registry)
        self.batch = Histogram(
            "cots_batch_queries", "Queries encoded together.", buckets=QUERIES, registry=self._registry
        )
        self.switches = Counter("cots_switches", "Changes to another version.", registry=self._registry)
        self.failed_loads = Counter("cots_failed_loads", "Versions that could not be loaded.", registry=self._registry)
        self.unlogged = Counter("cots_unlogged_queries", "Queries the log could not take.", registry=self._registry)
        self.item_changes = Counter(
            "cots_item_changes", "Items that requests added or changed.", ["outcome"], registry=self._registry
        )
        self.failed_refreshes = Counter(
            "cots_failed_refreshes", "Refreshes of the index that failed.", registry=self._registry
        )
        self._version = Gauge(
            "cots_version_info",
            "1 for the version that answers.",
            ["index_version", "encoders_version", "encoders_digest"],
            registry=self._registry,
        )

    def set_version(self, versions: Mapping[str, Mapping[str, str | None]]) -> None:
        """Set the version info to the version that answers from now on."""
        index, encoders = versions["index"], versions["encoders"]
        self._version.clear()
        self._version.labels(index["version"], encoders["version"] or "", encoders["digest"]).set(1)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)
