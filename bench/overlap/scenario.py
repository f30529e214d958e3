"""What one run measures, and what it gives: shared by the driver, the sender and the receiver."""

from __future__ import annotations

import msgspec

MARKER = 255
"""A byte that no kernel writes: where it arrives, a layer was read too early."""


class Shape(msgspec.Struct, frozen=True):
    """The KV cache on both sides: one tensor per layer, shape (blocks, block_bytes)."""

    layers: int
    blocks: int
    block_bytes: int


class Scenario(msgspec.Struct, frozen=True):
    """One prefill of all blocks, by `requests` requests, in `chunks` steps."""

    strategy: str
    """`relocated/0`, `relocated/1`, `relocated/2`, `sender_event`, `sender_stream` or `pr_as_merged`."""
    ratio: float
    """Transfer time of a layer over its compute time, both of one chunk."""
    chunks: int = 1
    requests: int = 1


class Result(msgspec.Struct, frozen=True):
    """Seconds, and layers whose bytes were read too early."""

    scenario: Scenario
    layers: int
    ttft: float
    exposed: float
    one_layer: float
    idle_share: float
    early_layers: int
    failed: str = ""


class Expect(msgspec.Struct, frozen=True):
    """To the receiver: attempts (hex) that will land in these blocks, and layer 0's value then (see `value_of`)."""

    attempts: list[str]
    blocks: list[list[int]]
    first_value: int


class Landed(msgspec.Struct, frozen=True):
    """From the receiver: when the last attempt was proven here (CLOCK_MONOTONIC), and what was wrong with the data."""

    at: float
    early_layers: int
    failed: str


def value_of(first_value: int, layer: int) -> int:
    """The byte that a layer's kernel writes; never the marker."""
    return (first_value + layer) % 251
