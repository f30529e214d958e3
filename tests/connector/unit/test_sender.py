"""The sender: one batch a layer, one report a push, and nothing without a grant."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from layercast_connector import metrics
from layercast_connector.plan.runs import Descriptors, RegionPair
from layercast_connector.prefill.push import Grant, Push, PushChunk, new_push
from layercast_connector.prefill.sender import Barrier, LayerReady, Sender, Target, Wake
from layercast_connector.protocol import messages as m
from layercast_connector.transport.base import TransferError
from layercast_connector.transport.tails import Proof

from tests.connector.unit.builders import Clock, prefill_request

pytestmark = pytest.mark.timeout(30)
LAYERS = 3


class Bench:
    """A sender whose transport does what `on_write` says, and whose reports are kept."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tally = metrics.Tally()
        self.writes: list[Descriptors] = []
        self.reports: list[m.Report] = []
        self.on_write: Callable[[], None] = lambda: None
        slices = [slice(index, index + 1) for index in range(LAYERS)]
        self.sender = Sender(self, slices, None, lambda _, r: self.reports.append(r), self.tally, self.clock)  # type: ignore[arg-type]
        self.sender.aim(Target("peer", [RegionPair(0, 10, 1000, 10, 10)] * LAYERS))

    def write(self, _session: str, batch: Descriptors) -> None:
        self.writes.append(batch)
        self.on_write()

    def push(self, *, granted: bool = True, blocks: int = 4) -> Push:
        request = prefill_request(num_blocks=blocks)
        push = new_push("request", request, LAYERS, Proof.COMPLETION, self.clock())
        if granted:
            self.grant(push)
        return push

    def grant(self, push: Push, lease: float = 4.0) -> None:
        push.grant = Grant(np.arange(push.request.num_blocks), self.clock() + lease)

    def layers(self, *pushes: Push, only: range = range(LAYERS), event: Any = None) -> None:
        chunks = [PushChunk(push, 0, np.arange(push.request.num_blocks)) for push in pushes]
        for layer in only:
            self.sender.put(LayerReady(layer, chunks, event, self.clock()))
        self.settle()

    def wake(self, push: Push) -> None:
        self.sender.put(Wake(push))
        self.settle()

    def settle(self) -> None:
        reached = threading.Event()
        self.sender.put(Barrier(reached))
        assert reached.wait(timeout=20)

    def outcomes(self) -> dict[str, int]:
        prefix = f"{metrics.PUSHES.name}|"
        return {key.removeprefix(prefix): n for key, n in self.tally.take().items() if key.startswith(prefix)}


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.sender.close()


def fail() -> None:
    raise TransferError("told to")


def test_a_granted_push_is_written_layer_by_layer_and_reported_once(bench: Bench) -> None:
    push = bench.push()
    bench.layers(push)
    assert len(bench.writes) == LAYERS
    assert [(r.ok, r.quiesced, r.layers, r.bytes_sent) for r in bench.reports] == [(True, True, LAYERS, 120)]
    assert push.closed


def test_without_a_grant_layers_are_parked_and_written_when_it_comes(bench: Bench) -> None:
    push = bench.push(granted=False)
    bench.layers(push)
    assert not bench.writes and len(push.parked) == LAYERS
    bench.grant(push)
    bench.wake(push)
    assert len(bench.writes) == LAYERS and [r.ok for r in bench.reports] == [True]


def test_after_the_lease_nothing_is_written_until_it_is_renewed(bench: Bench) -> None:
    push = bench.push()
    bench.layers(push, only=range(1))
    bench.clock.advance(4.0)
    bench.layers(push, only=range(1, LAYERS))
    assert len(bench.writes) == 1
    bench.grant(push)
    bench.wake(push)
    assert len(bench.writes) == LAYERS and [r.ok for r in bench.reports] == [True]


def test_the_lease_is_looked_at_before_every_parked_layer(bench: Bench) -> None:
    push = bench.push(granted=False)
    bench.layers(push)
    bench.grant(push)
    bench.on_write = lambda: bench.clock.advance(5.0)
    bench.wake(push)
    assert len(bench.writes) == 1


def test_layers_keep_their_order_behind_parked_ones(bench: Bench) -> None:
    push = bench.push(granted=False)
    bench.layers(push, only=range(2))
    bench.grant(push)
    bench.layers(push, only=range(2, LAYERS))
    assert not bench.writes, "the grant's own wake-up comes next"
    bench.wake(push)
    assert len(bench.writes) == LAYERS


def test_a_failed_write_fails_the_pushes_of_its_batch_and_no_other(bench: Bench) -> None:
    together, alone = [bench.push(), bench.push()], bench.push()
    bench.on_write = fail
    bench.layers(*together, only=range(1))
    bench.on_write = lambda: None
    bench.layers(alone)
    assert [(r.ok, r.quiesced, r.reason) for r in bench.reports] == [
        (False, False, "write_failed"),
        (False, False, "write_failed"),
        (True, True, ""),
    ]


def test_a_parked_layer_whose_write_fails_is_reported_and_counted_once(bench: Bench) -> None:
    push = bench.push(granted=False)
    bench.layers(push)
    bench.grant(push)
    bench.on_write = fail
    bench.wake(push)
    assert [r.reason for r in bench.reports] == ["write_failed"]
    assert bench.outcomes() == {"failed": 1}


def test_a_stop_while_the_last_parked_layer_is_written_is_reported_once(bench: Bench) -> None:
    push = bench.push(granted=False)
    bench.layers(push)
    bench.grant(push)
    bench.on_write = lambda: setattr(push, "stop_reason", "late") if len(bench.writes) == LAYERS else None
    bench.wake(push)
    assert len(bench.reports) == 1
    assert sum(bench.outcomes().values()) == 1


def test_a_stopped_push_is_reported_without_another_write(bench: Bench) -> None:
    push = bench.push()
    bench.layers(push, only=range(1))
    push.stop_reason = "cancelled"
    bench.layers(push, only=range(1, LAYERS))
    bench.wake(push)
    assert len(bench.writes) == 1
    assert [(r.ok, r.quiesced, r.reason) for r in bench.reports] == [(False, True, "cancelled")]


def test_a_closed_push_is_left_alone(bench: Bench) -> None:
    push = bench.push()
    push.stop_reason = "cancelled"
    bench.wake(push)
    bench.wake(push)
    bench.layers(push)
    assert not bench.writes and len(bench.reports) == 1


def test_a_parked_layer_counts_as_parked_until_its_write_has_ended(bench: Bench) -> None:
    """Preemption looks at `parked` from another thread: while a write reads the old blocks it must see it."""
    push = bench.push(granted=False)
    bench.layers(push)
    bench.grant(push)
    parked_in_write: list[int] = []
    bench.on_write = lambda: parked_in_write.append(len(push.parked))
    bench.wake(push)
    assert parked_in_write == [3, 2, 1]


def test_a_layer_is_written_after_its_event(bench: Bench) -> None:
    event = NotYet(bench)
    bench.layers(bench.push(), event=event)
    assert event.writes_when_waited == [0, 1, 2]


class NotYet:
    """An event that must be waited for; notes how many writes there were by then."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.writes_when_waited: list[int] = []

    def done(self) -> bool:
        return False

    def wait(self) -> None:
        self.writes_when_waited.append(len(self._bench.writes))


class Broken(NotYet):
    """A device that has failed."""

    def wait(self) -> None:
        raise RuntimeError("device lost")


def test_a_fault_of_the_device_fails_the_pushes_and_not_the_thread(bench: Bench) -> None:
    bench.layers(bench.push(), only=range(1), event=Broken(bench))
    assert [(r.ok, r.quiesced, r.reason) for r in bench.reports] == [(False, False, "sender_fault")]
    bench.layers(bench.push())
    assert [r.ok for r in bench.reports] == [False, True]


def test_closing_waits_for_the_write_that_is_under_way(bench: Bench) -> None:
    """After `close` the memory may be freed."""
    writing, go = threading.Event(), threading.Event()
    bench.on_write = lambda: (writing.set(), go.wait(20), None)[2]
    bench.sender.put(LayerReady(0, [PushChunk(bench.push(), 0, np.arange(4))], None, 0.0))
    assert writing.wait(timeout=20)
    closer = threading.Thread(target=bench.sender.close)
    closer.start()
    closer.join(timeout=0.05)
    assert closer.is_alive()
    go.set()
    closer.join(timeout=20)
    assert not closer.is_alive()
