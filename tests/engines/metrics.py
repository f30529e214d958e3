"""What an engine's /metrics says, as numbers that a test can compare."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]

# Which model and which engine (of several data-parallel ones) behind one address.
CONSTANT_LABELS = frozenset({"model_name", "engine"})


@dataclass(frozen=True)
class Metrics:
    """One scrape. Labels that say which engine it was are summed over; a name that isn't there counts as zero."""

    samples: dict[str, dict[Labels, float]]

    def total(self, name: str, **labels: str) -> float:
        """The sum over every sample of `name` that carries these labels."""
        wanted = frozenset(labels.items())
        return sum(value for found, value in self.samples.get(name, {}).items() if wanted <= found)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The samples of `name`, keyed by one of their labels; those that are zero are left out."""
        sums: dict[str, float] = {}
        for found, value in self.samples.get(name, {}).items():
            if value:
                key = dict(found).get(label, "")
                sums[key] = sums.get(key, 0.0) + value
        return sums

    def names(self, prefix: str) -> list[str]:
        return sorted(name for name in self.samples if name.startswith(prefix))

    def since(self, before: "Metrics") -> "Metrics":
        """What was added since an earlier scrape; right for counters and histograms, meaningless for gauges."""
        return Metrics(
            {
                name: {labels: value - before.samples.get(name, {}).get(labels, 0.0) for labels, value in found.items()}
                for name, found in self.samples.items()
            }
        )


def parse(text: str) -> Metrics:
    samples: dict[str, dict[Labels, float]] = {}
    for name, labels, value in _samples(text):
        found = samples.setdefault(name, {})
        found[labels] = found.get(labels, 0.0) + value
    return Metrics(samples)


def scrape(base_url: str, timeout: float = 30.0) -> Metrics:
    response = httpx.get(f"{base_url}/metrics", timeout=timeout)
    response.raise_for_status()
    return parse(response.text)


def _samples(text: str) -> Iterator[tuple[str, Labels, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset((key, value) for key, value in sample.labels.items() if key not in CONSTANT_LABELS)
            yield sample.name, labels, sample.value
