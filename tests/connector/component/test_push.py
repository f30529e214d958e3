"""Whole pushes between a real prefill worker and a real decode worker: the bytes that end up on decode."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from layercast_connector import metrics

from tests.connector.component.rig import Rig
from tests.connector.unit.simstream import ThreadStream

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def stream() -> Iterator[ThreadStream]:
    made = ThreadStream()
    yield made
    made.close()


@pytest.mark.parametrize("chunk", [100, 4, 3, 1], ids=lambda n: f"{n} blocks a step")
def test_a_prompt_arrives_byte_for_byte(rig: Rig, chunk: int) -> None:
    attempt = rig.attempt(blocks=10)
    rig.decode.expect(attempt)
    rig.prefill.push(attempt, chunk)
    ended = rig.decode.outcome(attempt)
    assert ended.failure is None and not ended.bad_blocks
    assert rig.same(attempt)


@pytest.mark.parametrize("sync", ["relocated", "sender_event", "sender_stream"])
@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_a_prompt_arrives_from_a_device_that_computes_later(
    make_rig: Callable[..., Rig], stream: ThreadStream, sync: str, lookahead: int
) -> None:
    rig = make_rig(stream=stream, settings={"layer_sync": sync, "lookahead": lookahead})
    attempt = rig.attempt(blocks=6)
    rig.decode.expect(attempt)
    rig.prefill.push(attempt, chunk=2)
    assert rig.decode.outcome(attempt).failure is None
    assert rig.same(attempt)


def test_only_the_blocks_of_the_attempt_are_written(rig: Rig) -> None:
    attempt, other = rig.attempt(blocks=5), rig.attempt(blocks=5)
    before = rig.decode.kv(other)
    rig.decode.expect(attempt)
    rig.prefill.push(attempt)
    assert rig.decode.outcome(attempt).failure is None
    assert (rig.decode.kv(other) == before).all()


def test_a_prompt_whose_beginning_decode_has_arrives_behind_it(rig: Rig) -> None:
    attempt = rig.attempt(blocks=5, first_block=7)
    rig.decode.expect(attempt)
    rig.prefill.push(attempt, chunk=2)
    assert rig.decode.outcome(attempt).failure is None
    assert rig.same(attempt)


def test_several_prompts_in_one_step_go_in_one_batch_a_layer(rig: Rig) -> None:
    attempts = [rig.attempt(blocks=3) for _ in range(4)]
    rig.decode.expect(*attempts)
    first = attempts[0]
    rig.prefill.step((first, 0, 1), *((a, 0, 3) for a in attempts[1:]), new=attempts)
    for attempt in attempts[1:]:
        assert rig.decode.outcome(attempt).failure is None
    before = len(rig.wire.writes)
    more = [rig.attempt(blocks=3) for _ in range(2)]
    rig.decode.expect(*more)
    rig.prefill.step((first, 1, 3))
    assert rig.decode.outcome(first).failure is None
    assert len(rig.wire.writes) - before == rig.prefill.layers
    assert all(rig.same(attempt) for attempt in attempts)


def test_forty_pushes_at_once_share_two_threads(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(blocks=512)
    attempts = [rig.attempt(blocks=12) for _ in range(40)]
    rig.prefill.step(*((a, 0, 5) for a in attempts), new=attempts)
    threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("layercast")}
    assert threads == {"layercast-sender", "layercast-link", "layercast-control"}
    assert sum(thread.name == "layercast-sender" for thread in threading.enumerate()) == 1
    rig.decode.expect(*attempts)
    for attempt in attempts:
        rig.prefill.step((attempt, 5, 12))
    assert [rig.decode.outcome(attempt).failure for attempt in attempts] == [None] * 40
    assert all(rig.same(attempt) for attempt in attempts)
    rig.prefill.free(*attempts)


def test_an_ask_may_come_before_the_registration(rig: Rig) -> None:
    attempt = rig.attempt()
    rig.prefill.push(attempt)
    assert not rig.wire.writes
    rig.decode.expect(attempt)
    assert rig.decode.outcome(attempt).failure is None
    assert rig.same(attempt)


class BusyStream:
    """A device that is still busy with earlier steps; `asked` is set when someone looks whether it is."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.free = threading.Event()

    def record(self) -> BusyStream:
        return self

    def whole(self) -> BusyStream:
        return self

    def wait(self) -> None:
        assert self.free.wait(timeout=20)

    def done(self) -> bool:
        self.asked.set()
        return self.free.is_set()


def test_nothing_is_written_before_the_steps_before_the_registration_are_done(make_rig: Callable[..., Rig]) -> None:
    """A decode step that is already queued may still write into a block that was freed and given to the attempt."""
    stream = BusyStream()
    rig = make_rig(decode={"stream": stream})
    attempt = rig.attempt()
    rig.decode.expect(attempt)
    rig.prefill.push(attempt)
    assert stream.asked.wait(timeout=20)
    assert not rig.wire.writes
    stream.free.set()
    assert rig.decode.outcome(attempt).failure is None
    assert rig.same(attempt)


def test_counts_say_what_was_pushed(rig: Rig) -> None:
    attempt = rig.attempt(blocks=5)
    rig.decode.expect(attempt)
    rig.prefill.push(attempt, chunk=2)
    ended = rig.decode.outcome(attempt)
    rig.prefill.free(attempt)
    nbytes = rig.prefill.kv(attempt).nbytes
    assert ended.report is not None
    assert (ended.report.layers, ended.report.bytes_sent) == (rig.prefill.layers, nbytes)
    counts = rig.prefill.parts.tally.take()
    assert counts == {
        "layercast_pushes|done": 1,
        "layercast_pushed_bytes|": nbytes,
        "layercast_pushed_layers|": rig.prefill.layers,
    }
    assert rig.decode.count(metrics.FENCES, "proven") == 1


def test_blocks_are_freed_on_prefill_once_vllm_is_done_and_the_push_is_over(rig: Rig) -> None:
    attempt = rig.attempt()
    rig.prefill.push(attempt)
    assert rig.prefill.worker.take_finished({attempt.req_id}) == set(), "its push waits for a grant"
    rig.decode.expect(attempt)
    rig.prefill.free(attempt)
    assert rig.decode.outcome(attempt).failure is None
