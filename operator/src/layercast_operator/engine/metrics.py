"""The operator's own metrics (docs/operator.md lists them). One registry, handed around, never global."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_PREFIX = "layercast_operator"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue_depth = self._gauge("queue_depth", "Resources that wait to be reconciled.")
        self.leader = self._gauge("leader", "1 while this process may write.")
        self.reconcile_seconds = Histogram(
            f"{_PREFIX}_reconcile_seconds", "One reconciliation.", buckets=_BUCKETS, registry=self.registry
        )
        self.errors = self._counter("reconcile_errors_total", "Reconciliations that failed.", ["error"])
        self.writes = self._counter("writes_total", "Writes sent to the API, leases aside.", ["verb", "kind"])
        self.swept = self._counter("swept_objects_total", "Objects whose deletion no event told.", ["kind"])

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)
