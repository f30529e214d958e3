"""Compares the answers of two runs: token ids must be equal, log-probabilities nearly so."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tests.engines.client import Reply

# Float32 noise of other batch compositions and chunk boundaries is about 1e-5 at 4,000 tokens (README.md).
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Difference:
    """How one answer differs; `worst` is the largest gap of log-probabilities, infinite for other tokens."""

    case: str
    worst: float
    detail: str

    def __str__(self) -> str:
        return f"{self.case}: {self.detail}"


def difference(case: str, wanted: Reply, got: Reply) -> Difference:
    """The two replies' distance, zero when they are the same."""
    tokens = [[answer.token_ids for answer in reply.answers] for reply in (wanted, got)]
    if tokens[0] != tokens[1]:
        return Difference(case, math.inf, f"token ids {tokens[1]} instead of {tokens[0]}")
    values = [[value for answer in reply.answers for value in answer.logprobs] for reply in (wanted, got)]
    if not values[0] or len(values[0]) != len(values[1]):
        return Difference(case, math.inf, f"{len(values[1])} log-probabilities instead of {len(values[0])}")
    worst = max(abs(a - b) if math.isfinite(a - b) else math.inf for a, b in zip(*values, strict=True))
    return Difference(case, worst, f"log-probabilities differ by {worst:.2e}")


def differences(cases: Iterable[tuple[str, Reply, Reply]], tolerance: float = TOLERANCE) -> list[Difference]:
    """Those (name, wanted, got) that are farther apart than `tolerance`, the worst first."""
    found = [difference(*case) for case in cases]
    return sorted((each for each in found if each.worst > tolerance), key=lambda each: -each.worst)
