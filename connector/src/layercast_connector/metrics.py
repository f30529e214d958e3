"""What the connector counts, in a form that vLLM carries from workers and scheduler to `/metrics`.

Both halves collect into a `Tally`; vLLM takes a snapshot each step, adds the ranks together and hands the sums to
`PromMetrics`. Nothing here knows vLLM: `connector.py` wraps it into vLLM's classes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Snapshot = dict[str, Any]
"""`{"name|label": count}` for counters, `{"name": [observations]}` for histograms: mergeable and picklable."""


@dataclass(frozen=True)
class Metric:
    """One series on `/metrics`; `label` is its own label's name, if it has one."""

    name: str
    help: str
    label: str = ""
    buckets: Sequence[float] = ()


PUSHES = Metric("layercast_pushes", "Attempts that this prefill worker ended, by outcome.", "outcome")
PUSHED_BYTES = Metric("layercast_pushed_bytes", "KV bytes handed to the transfer engine.")
PUSHED_LAYERS = Metric("layercast_pushed_layers", "Layers pushed, summed over attempts that succeeded.")
REMOTE = Metric("layercast_remote_prefills", "Prompts whose KV came from a prefill pod.")
LOCAL = Metric("layercast_local_prefills", "Prompts prefilled on decode, by reason.", "reason")
FAILED = Metric("layercast_failed_prefills", "Remote prefills that failed, by reason.", "reason")
FENCES = Metric("layercast_fences", "Attempts fenced on decode, by outcome.", "outcome")
DROPPED = Metric("layercast_dropped_messages", "Control messages dropped, by reason.", "reason")
EXPOSED = Metric(
    "layercast_exposed_seconds",
    "From the last layer's compute to its proven arrival on decode.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
COUNTERS = (PUSHES, PUSHED_BYTES, PUSHED_LAYERS, REMOTE, LOCAL, FAILED, FENCES, DROPPED)
HISTOGRAMS = (EXPOSED,)


class Tally:
    """Thread-safe counts since the last snapshot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._data: Snapshot = {}

    def count(self, metric: Metric, label: str = "", amount: int = 1) -> None:
        """Adds to a counter."""
        key = f"{metric.name}|{label}"
        with self._lock:
            self._data[key] = self._data.get(key, 0) + amount

    def observe(self, metric: Metric, value: float) -> None:
        """Adds an observation to a histogram."""
        with self._lock:
            self._data.setdefault(metric.name, []).append(value)

    def take(self) -> Snapshot:
        """The counts since the last call."""
        with self._lock:
            data, self._data = self._data, {}
        return data


def merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> Snapshot:
    """The sum of two snapshots."""
    merged = dict(left)
    for key, value in right.items():
        merged[key] = merged[key] + value if key in merged else value
    return merged


def summary(data: Mapping[str, Any]) -> dict[str, float]:
    """One number per series, for vLLM's periodic log line."""
    return {
        key.strip("|"): float(max(value, default=0.0) if isinstance(value, list) else value)
        for key, value in data.items()
    }
