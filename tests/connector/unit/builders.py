"""Builders for unit tests: memory, requests and messages with defaults, so that a test names only what it is about."""

from __future__ import annotations

from typing import Any

import numpy as np
from layercast_connector.protocol import messages as m
from layercast_connector.settings import Timeouts

WAITS = Timeouts(dispatch=5.0, first_layer=100.0, progress=20.0, done=10.0, lease=4.0, transfer=6.0)
ATTEMPT = bytes(range(16))
INCARNATION = "decode-1"


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def tensors(regions: int = 2, blocks: int = 16, block_bytes: int = 32) -> list[np.ndarray[Any, Any]]:
    """KV memory: one array of [blocks, block bytes] per region, each with other bytes."""
    rng = np.random.default_rng(regions * blocks)
    return [rng.integers(0, 256, (blocks, block_bytes), dtype=np.uint8) for _ in range(regions)]


def regions_over(memory: list[np.ndarray[Any, Any]]) -> list[m.Region]:
    return [
        m.Region(f"layer.{index}", 0, int(one.ctypes.data), one.strides[0], one.shape[1], one.shape[0])
        for index, one in enumerate(memory)
    ]


def prefill_request(**changes: Any) -> m.PrefillRequest:
    values: dict[str, Any] = {
        "attempt": ATTEMPT,
        "compatibility": "key",
        "workers": [m.Worker("tcp://10.0.0.1:36001", INCARNATION)],
        "first_block": 0,
        "num_blocks": 4,
        "prompt_tokens": 64,
    }
    return m.PrefillRequest(**(values | changes))


def ask(attempt: bytes = ATTEMPT, number: int = 1, sent_cells: int = 0, incarnation: str = INCARNATION) -> m.Ask:
    return m.Ask(attempt, incarnation, number, sent_cells)


def a_report(**changes: Any) -> m.Report:
    """A report of an attempt that failed before anything was written."""
    values: dict[str, Any] = {
        "attempt": ATTEMPT,
        "ok": False,
        "quiesced": True,
        "reason": "broken",
        "cells": b"",
        "digest": b"",
        "layers": 0,
        "bytes_sent": 0,
        "exposed": 0.0,
    }
    return m.Report(**(values | changes))
