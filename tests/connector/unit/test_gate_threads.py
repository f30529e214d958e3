"""The gate with real threads: a stream that runs kernels, a sender that reads bytes, and a model that calls hooks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from layercast_connector.sync.gate import LayerGate, Strategy

from tests.connector.unit.simstream import ThreadStream, slow_fill
from tests.connector.unit.test_gate import HandedOverInSave

LAYERS, STEPS, LAYER_BYTES = 6, 8, 4096
NAMES = [f"layer.{index}" for index in range(LAYERS)]


class Reader:
    """The sender: a thread that copies a released layer at once, or after its event."""

    def __init__(self, memory: Any) -> None:
        self.copies: list[tuple[int, set[int]]] = []
        self._memory = memory
        self._queue: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self, layer: int, event: Any) -> None:
        self._queue.put((layer, event))

    def read_all(self) -> list[tuple[int, set[int]]]:
        """Every copy, as (layer, the values that its bytes had)."""
        self._queue.put(None)
        self._thread.join(timeout=20)
        return self.copies

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            layer, event = work
            if event is not None:
                event.wait()
            self.copies.append((layer, set(self._memory[layer].tolist())))


@pytest.fixture
def stream() -> Iterator[ThreadStream]:
    made = ThreadStream()
    yield made
    made.close()


def forward(stream: ThreadStream, gate: Any, memory: Any, value: int, pause: Callable[[], None]) -> None:
    """One step of the model: each layer's kernel fills its memory with `value`."""
    gate.begin()
    for index, name in enumerate(NAMES):
        gate.reach(name)
        stream.queue(slow_fill(memory[index], value, pause))
        gate.stage(name)
    gate.end()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("lookahead", [0, 1, 2])
@pytest.mark.parametrize("strategy", list(Strategy))
def test_what_the_sender_copies_is_whole_in_every_step(
    stream: ThreadStream, strategy: Strategy, lookahead: int
) -> None:
    rng = np.random.default_rng(lookahead)
    for value in range(1, STEPS + 1):
        memory = np.zeros((LAYERS, LAYER_BYTES), np.uint8)  # another block each step: no step waits for the last copy
        reader = Reader(memory)
        gate = LayerGate(NAMES, stream, reader.take, strategy, lookahead)
        forward(stream, gate, memory, value, lambda: spin(rng))
        assert sorted(reader.read_all()) == [(layer, {value}) for layer in range(LAYERS)]


@pytest.mark.timeout(60)
def test_without_the_gate_the_sender_copies_layers_that_are_not_computed(stream: ThreadStream) -> None:
    """PR #4478 as merged: the layer is visible in `save`. The kernels wait until the sender has read something."""
    memory = np.zeros((LAYERS, LAYER_BYTES), np.uint8)
    reader = Reader(memory)
    gate = HandedOverInSave(NAMES, stream, reader.take)  # type: ignore[arg-type]
    forward(stream, gate, memory, 1, lambda: until(lambda: bool(reader.copies)))
    assert (0, {0}) in reader.read_all()


def spin(rng: np.random.Generator) -> None:
    """A kernel's time, of no fixed length: enough for other threads to come in between."""
    for _ in range(int(rng.integers(0, 300))):
        threading.get_ident()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("the condition never came true")
