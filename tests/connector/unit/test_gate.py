"""The invariant of the relocated sync: no byte of a layer is read before the layer's event completed.

The check is run against our gate under adversarial timing, and against the gate taken away, where it must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layercast_connector.sync.gate import GateError, LayerGate, Strategy

from tests.connector.unit.simstream import SimStream

ADVERSARY = st.integers(0, 5)
"""How many kernels the adversary lets complete at a moment."""


class ReadTooEarly(AssertionError):
    """A consumer read a layer that was not computed yet."""


@dataclass
class Layer:
    """What happens to one layer in one step: which hooks its attention calls, and how."""

    wait: str = "named"
    save: str = "named"
    saves: int = 1
    kernels: int = 1


@dataclass
class Consumer:
    """The sender: takes released layers, waits on the event if there is one, and reads at a time of its choice."""

    memory: list[int]
    step: int = 0
    released: list[int] = field(default_factory=list)
    held: list[tuple[int, Any]] = field(default_factory=list)
    early: list[str] = field(default_factory=list)

    def take(self, layer: int, event: Any) -> None:
        self.released.append(layer)
        if event is None:
            self.read(layer)
        else:
            self.held.append((layer, event))

    def read_held(self, layers: int) -> None:
        for _ in range(min(layers, len(self.held))):
            layer, event = self.held.pop(0)
            event.wait()
            self.read(layer)

    def read(self, layer: int) -> None:
        if self.memory[layer] != self.step:
            self.early.append(f"layer {layer} held step {self.memory[layer]}, not {self.step}")

    def check(self) -> None:
        if self.early:
            raise ReadTooEarly(self.early)


Gate = Callable[[list[str], SimStream, Callable[..., None]], Any]


def ours(strategy: Strategy, lookahead: int) -> Gate:
    return lambda layers, stream, release: LayerGate(layers, stream, release, strategy, lookahead)


@dataclass
class Run:
    """Steps of a model on a simulated stream, with a gate in between and a consumer behind."""

    gate: Gate
    layers: int
    adversary: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        self.stream = SimStream()
        self.memory = [0] * self.layers
        self.names = [f"model.layers.{index}.attn" for index in range(self.layers)]
        self.consumer = Consumer(self.memory)
        self.live = self.gate(self.names, self.stream, self.consumer.take)

    def step(self, number: int, layers: list[Layer]) -> None:
        self.consumer.step = number
        self.consumer.released = []
        self.live.begin()
        for index, layer in enumerate(layers):
            self._call(self.live.reach, layer.wait, index)
            for _ in range(layer.kernels - 1):
                self.stream.queue(lambda: None)
            self.stream.queue(lambda index=index: self.memory.__setitem__(index, number))
            self._let_time_pass()
            for _ in range(layer.saves):
                self._call(self.live.stage, layer.save, index)
            self._let_time_pass()
        self.live.end()
        self._let_time_pass()
        self.consumer.read_held(len(layers))
        self.consumer.check()

    def _call(self, hook: Callable[[str], None], how: str, index: int) -> None:
        name = {"named": self.names[index], "unnamed": "", "foreign": "draft.0", "skipped": None}[how]
        if name is not None:
            hook(name)

    def _let_time_pass(self) -> None:
        self.stream.complete(self.adversary())
        self.consumer.read_held(self.adversary())


HOOKS = st.sampled_from(["named", "named", "named", "unnamed", "foreign", "skipped"])
LAYERS = st.builds(Layer, wait=HOOKS, save=HOOKS, kernels=st.integers(1, 3))
GRAPH = st.just(Layer(wait="skipped", save="skipped"))


@st.composite
def steps(draw: st.DrawFn) -> list[list[Layer]]:
    count = draw(st.integers(1, 6))
    kinds = st.sampled_from([LAYERS, LAYERS, GRAPH, st.just(Layer()), st.just(Layer(wait="skipped"))])
    return [draw(st.lists(draw(kinds), min_size=count, max_size=count)) for _ in range(draw(st.integers(1, 3)))]


@pytest.mark.parametrize("lookahead", [0, 1, 2])
@pytest.mark.parametrize("strategy", list(Strategy))
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_no_layer_is_read_before_its_event_and_each_is_released_once_a_step(
    strategy: Strategy, lookahead: int, data: st.DataObject
) -> None:
    plan = data.draw(steps())
    run = Run(ours(strategy, lookahead), len(plan[0]), lambda: data.draw(ADVERSARY))
    for number, layers in enumerate(plan, start=1):
        run.step(number, layers)
        assert sorted(run.consumer.released) == list(range(len(layers)))


@pytest.mark.parametrize("lookahead", [0, 1, 2])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_layer_saved_twice_is_read_whole_or_the_step_fails(lookahead: int, data: st.DataObject) -> None:
    """Two micro-batches: each queues its kernels and calls the hooks for every layer."""
    count = data.draw(st.integers(1, 5))
    run = Run(ours(Strategy.RELOCATED, lookahead), count, lambda: data.draw(ADVERSARY))
    run.consumer.step = 1
    run.live.begin()
    halves = [0] * count
    try:
        for index in data.draw(st.permutations(list(range(count)) * 2)):
            halves[index] += 1
            run.live.reach(run.names[index])
            if halves[index] == 2:
                run.stream.queue(lambda index=index: run.memory.__setitem__(index, 1))
            run.live.stage(run.names[index])
        run.live.end()
    except GateError:
        return
    run.consumer.read_held(count)
    run.consumer.check()
    assert sorted(run.consumer.released) == list(range(count))


class HandedOverInSave:
    """PR #4478 as merged: `save_kv_layer` hands the layer over; the sync comes in the next layer's hook."""

    def __init__(self, layers: list[str], stream: SimStream, release: Callable[..., None]) -> None:
        self._index = {name: index for index, name in enumerate(layers)}
        self._stream = stream
        self._release = release

    def begin(self) -> None: ...

    def reach(self, _layer: str) -> None:
        self._stream.synchronize()

    def stage(self, layer: str) -> None:
        self._release(self._index[layer], None)

    def end(self) -> None:
        self._stream.synchronize()


class ReleasesWithoutWaiting(HandedOverInSave):
    """The staging is kept, but nothing is waited for."""

    def begin(self) -> None:
        self._staged: list[int] = []

    def reach(self, _layer: str) -> None:
        self.end()

    def stage(self, layer: str) -> None:
        self._staged.append(self._index[layer])

    def end(self) -> None:
        while self._staged:
            self._release(self._staged.pop(0), None)


class WaitsForTheLayerBefore(LayerGate):
    """Off by one: releases a layer after the event of the layer before it."""

    def __init__(self, layers: list[str], stream: SimStream, release: Callable[..., None]) -> None:
        super().__init__(layers, stream, release, Strategy.RELOCATED, 0)
        self._before: Any = stream.record()

    def stage(self, layer: str) -> None:
        super().stage(layer)
        index = self._index[layer]
        self._before, self._staged[index] = self._staged[index], self._before


@pytest.mark.parametrize(
    "gate",
    [
        pytest.param(HandedOverInSave, id="handed over in save, synchronized in the next hook"),
        pytest.param(ReleasesWithoutWaiting, id="staged, but released without a wait"),
        pytest.param(WaitsForTheLayerBefore, id="waits for the event of the layer before"),
    ],
)
def test_without_the_gate_the_same_check_fails(gate: Gate) -> None:
    run = Run(gate, layers=4)
    with pytest.raises(ReadTooEarly):
        run.step(1, [Layer()] * 4)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_with_the_gate_the_same_run_passes(strategy: Strategy) -> None:
    run = Run(ours(strategy, lookahead=1), layers=4)
    run.step(1, [Layer()] * 4)
    assert run.consumer.released == [0, 1, 2, 3]


@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_the_hook_waits_for_the_layer_that_lookahead_names_and_no_other(lookahead: int) -> None:
    run = Run(ours(Strategy.RELOCATED, lookahead), layers=6)
    run.live.begin()
    for index, name in enumerate(run.names):
        run.live.reach(name)
        assert run.consumer.released == list(range(max(0, index - lookahead)))
        assert run.stream.pending == min(index, lookahead)
        run.stream.queue(lambda index=index: run.memory.__setitem__(index, 0))
        run.live.stage(name)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_the_last_layer_is_kept_until_the_step_ends(strategy: Strategy) -> None:
    """With it the push would be complete and reported, and a second save, which fails the step, would come too late."""
    run = Run(ours(strategy, 0), layers=3)
    run.live.begin()
    for name in run.names:
        run.live.reach(name)
        run.live.stage(name)
    assert len(run.consumer.released) == 2
    run.live.end()
    assert sorted(run.consumer.released) == [0, 1, 2]


def test_nothing_is_released_outside_a_step() -> None:
    run = Run(ours(Strategy.RELOCATED, 0), layers=2)
    for name in run.names:
        run.live.reach(name)
        run.live.stage(name)
    run.live.end()
    assert run.consumer.released == []


def test_ending_a_step_twice_releases_nothing_more() -> None:
    run = Run(ours(Strategy.RELOCATED, 0), layers=2)
    run.step(1, [Layer()] * 2)
    run.live.end()
    assert sorted(run.consumer.released) == [0, 1]


def test_a_step_that_was_cut_short_leaves_nothing_for_the_next() -> None:
    run = Run(ours(Strategy.RELOCATED, 2), layers=3)
    run.live.begin()
    run.live.stage(run.names[0])
    run.step(1, [Layer()] * 3)
    assert sorted(run.consumer.released) == [0, 1, 2]


@pytest.mark.parametrize("strategy", [Strategy.SENDER_EVENT, Strategy.SENDER_STREAM])
def test_a_second_save_of_a_layer_that_is_with_the_sender_is_an_error(strategy: Strategy) -> None:
    run = Run(ours(strategy, 0), layers=2)
    run.live.begin()
    run.live.stage(run.names[0])
    with pytest.raises(GateError, match=run.names[0]):
        run.live.stage(run.names[0])
