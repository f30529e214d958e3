"""Our counts in vLLM's classes: from worker and scheduler halves to the API server's `/metrics`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter, Histogram
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats

from layercast_connector import metrics


@dataclass
class LayercastStats(KVConnectorStats):
    """Counts since the last step, in the form of `metrics.Snapshot`."""

    data: dict[str, Any] = field(default_factory=dict)

    def reset(self) -> None:
        """Forgets everything."""
        self.data = {}

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        """The sum of two."""
        return LayercastStats(data=metrics.merge(self.data, other.data))

    def reduce(self) -> dict[str, int | float]:
        """One number per series."""
        return dict(metrics.summary(self.data))

    def is_empty(self) -> bool:
        """Whether nothing was counted."""
        return not self.data


class LayercastPromMetrics(KVConnectorPromMetrics):
    """Registers our series and adds each snapshot to them."""

    def __init__(
        self,
        vllm_config: Any,
        metric_types: Any,
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        self._counters = {
            metric.name: (metric, self._counter_cls(metric.name, metric.help, labelnames=self._labels(metric)))
            for metric in metrics.COUNTERS
        }
        self._histograms = {
            metric.name: self._histogram_cls(
                metric.name, metric.help, buckets=list(metric.buckets), labelnames=self._labels(metric)
            )
            for metric in metrics.HISTOGRAMS
        }
        for engine in per_engine_labelvalues:
            self._start_at_zero(engine)

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        """Adds a snapshot."""
        values = self.per_engine_labelvalues[engine_idx]
        for key, value in transfer_stats_data.items():
            name, _, label = key.partition("|")
            if name in self._histograms:
                histogram: Histogram = self._histograms[name].labels(*values)
                for observation in value:
                    histogram.observe(observation)
            elif name in self._counters:
                metric, counter = self._counters[name]
                counter.labels(*values, *([label] if metric.label else [])).inc(value)

    def _labels(self, metric: metrics.Metric) -> list[str]:
        return [*self._labelnames, *([metric.label] if metric.label else [])]

    def _start_at_zero(self, engine: int) -> None:
        """Series without a label of their own exist from the start, so that a rate over them does too."""
        values = self.per_engine_labelvalues[engine]
        for metric, counter in self._counters.values():
            if not metric.label:
                child: Counter = counter.labels(*values)
                child.inc(0)
        for histogram in self._histograms.values():
            histogram.labels(*values)
