"""What goes wrong on the way: who hears of it, what is written afterwards, and when blocks are reported."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from layercast_connector import metrics
from layercast_connector.plan.runs import Descriptors

from tests.connector.component.relay import Relay
from tests.connector.component.rig import HASTY, Rig, until
from tests.connector.component.wire import Fail, Hang
from tests.connector.unit.simstream import ThreadStream

pytestmark = pytest.mark.timeout(60)

MakeRig = Callable[..., Rig]
Closing = Callable[[Any], Any]


def test_a_cancel_before_the_grant_ends_at_once_and_nothing_is_written(rig: Rig) -> None:
    attempt = rig.attempt()
    rig.decode.expect(attempt)
    rig.decode.stop(attempt, "aborted", aborted=True)
    ended = rig.decode.outcome(attempt)
    assert (ended.failure, ended.bad_blocks) == ("aborted", set())
    rig.prefill.push(attempt)
    rig.prefill.free(attempt)
    assert not rig.wire.writes


def test_a_cancel_after_the_grant_ends_when_the_writer_has_said_what_it_wrote(rig: Rig) -> None:
    attempt = rig.attempt()
    rig.wire.behave = rig.wire.hold
    rig.decode.expect(attempt)
    rig.prefill.step((attempt, 0, 2), new=[attempt])
    until(lambda: len(rig.wire.held) == rig.prefill.layers, "the first chunk is under way")
    rig.decode.stop(attempt, "aborted", aborted=True)
    rig.prefill.free(attempt)
    rig.decode.step()
    assert rig.decode.ended == {}, "bytes are still under way into its blocks"
    rig.wire.land()
    assert rig.decode.outcome(attempt).failure == "aborted"
    rig.prefill.step((attempt, 2, 4))
    assert len(rig.wire.writes) == rig.prefill.layers


def test_a_request_that_vanishes_on_prefill_fails_on_decode_with_its_blocks(rig: Rig) -> None:
    attempt = rig.attempt()
    rig.decode.expect(attempt)
    rig.prefill.step((attempt, 0, 2), new=[attempt])
    until(lambda: rig.wire.writes, "the push has begun")
    rig.prefill.step(aborted=[attempt.nonce])
    ended = rig.decode.outcome(attempt)
    assert (ended.failure, ended.bad_blocks) == ("aborted", set(attempt.dst.tolist()))
    rig.prefill.free(attempt)


def test_bytes_that_land_late_are_not_reported_before(rig: Rig) -> None:
    """The transport says success at once: a returned write has not arrived."""
    attempt = rig.attempt()
    rig.wire.behave = rig.wire.hold
    rig.decode.expect(attempt)
    rig.prefill.push(attempt)
    rig.prefill.free(attempt)
    while rig.wire.held:
        rig.decode.step()
        assert rig.decode.ended == {}
        rig.wire.land(1)
    assert rig.decode.outcome(attempt).failure is None
    assert rig.same(attempt)


def test_bytes_that_never_land_fail_the_request(make_rig: MakeRig) -> None:
    rig = make_rig(waits=HASTY)
    attempt = rig.attempt()
    rig.wire.behave = rig.wire.hold
    rig.decode.expect(attempt)
    rig.prefill.push(attempt)
    ended = rig.decode.outcome(attempt)
    assert (ended.failure, ended.bad_blocks) == ("timeout:done", set(attempt.dst.tolist()))
    assert rig.decode.count(metrics.FENCES, "quarantined") == 1


def test_a_failed_write_fails_the_requests_of_its_batch_and_no_other(make_rig: MakeRig) -> None:
    rig = make_rig(waits=HASTY)
    alone, together = rig.attempt(), [rig.attempt(), rig.attempt()]
    rig.decode.expect(alone, *together)
    rig.prefill.step((alone, 0, 2), *((a, 0, 2) for a in together), new=[alone, *together])
    until(lambda: rig.prefill.worker._pushes[alone.nonce].push.sent[:, :2].all(), "the first chunks are written")
    rig.wire.behave = Fail()
    rig.prefill.step(*((a, 2, 4) for a in together))
    until(lambda: all(rig.prefill.worker._pushes[a.nonce].push.closed for a in together), "the failure is noticed")
    rig.wire.behave = None
    rig.prefill.step((alone, 2, 4))
    assert rig.decode.outcome(alone).failure is None
    assert rig.same(alone)
    assert [rig.decode.outcome(attempt).failure for attempt in together] == ["write_failed"] * 2


def test_nothing_is_written_after_the_lease_while_the_control_link_is_stalled(
    make_rig: MakeRig, closing: Closing
) -> None:
    rig = make_rig(waits=msgspec.structs.replace(HASTY, first_layer=2.0))
    relay = closing(Relay(rig.decode.port))
    attempt = rig.attempt(place=msgspec.structs.replace(rig.decode.worker.place, address=relay.address))
    rig.decode.expect(attempt)
    rig.prefill.step((attempt, 0, 2), new=[attempt])
    until(lambda: len(rig.wire.writes) == rig.prefill.layers, "the first chunk is written")
    relay.stall()
    ended = rig.decode.outcome(attempt)
    assert ended.failure in {"timeout:first_layer", "timeout:progress"}, "by how far decode knows that it came"
    before = rig.decode.kv(attempt)
    rig.prefill.step((attempt, 2, 4))
    relay.go_on()
    rig.prefill.free(attempt)
    assert len(rig.wire.writes) == rig.prefill.layers
    assert np.array_equal(rig.decode.kv(attempt), before)


def test_a_push_that_outlived_a_stall_goes_on(make_rig: MakeRig, closing: Closing) -> None:
    rig = make_rig(waits=msgspec.structs.replace(HASTY, progress=40.0, done=40.0))
    relay = closing(Relay(rig.decode.port))
    attempt = rig.attempt(place=msgspec.structs.replace(rig.decode.worker.place, address=relay.address))
    rig.decode.expect(attempt)
    rig.prefill.step((attempt, 0, 2), new=[attempt])
    until(lambda: len(rig.wire.writes) == rig.prefill.layers, "the first chunk is written")
    relay.stall()
    push = rig.prefill.worker._pushes[attempt.nonce].push
    asked = push.asked
    until(lambda: push.asked > asked + 4, "more than a lease has gone by")
    rig.prefill.step((attempt, 2, 4))
    until(lambda: len(push.parked) == rig.prefill.layers, "the layers wait for a longer lease")
    relay.go_on()
    assert rig.decode.outcome(attempt).failure is None
    assert rig.same(attempt)


def test_a_hanging_write_to_one_decode_worker_holds_up_no_other(make_rig: MakeRig, closing: Closing) -> None:
    rig = make_rig()
    other = closing(make_rig()).decode
    stuck, free = rig.attempt(), rig.attempt(place=other.worker.place)
    rig.wire.extents |= {"session-of-" + other.parts.incarnation: extents(other)}
    hang = Hang()
    rig.wire.behave = lambda batch: hang(batch) if is_to(rig.decode, batch) else move_to(batch)
    rig.decode.expect(stuck)
    other.expect(free)
    rig.prefill.step((stuck, 0, 4), (free, 0, 4), new=[stuck, free])
    assert other.outcome(free).failure is None
    hang.release()
    assert rig.decode.outcome(stuck).failure is None


def extents(decode: Any) -> list[tuple[int, int]]:
    return [(r.base, r.stride * r.num_blocks) for r in decode.memory.regions()]


def is_to(decode: Any, batch: Descriptors) -> bool:
    return any(base <= int(batch.dst[0]) < base + size for base, size in extents(decode))


def move_to(batch: Descriptors) -> None:
    Fail(lambda _: False)(batch)


class TestPreemption:
    """`handle_preemptions` returns when nothing reads the old blocks any more."""

    def test_what_was_computed_is_written_first(self, make_rig: MakeRig) -> None:
        stream = ThreadStream()
        go = threading.Event()
        rig = make_rig(stream=stream)
        attempt = rig.attempt()
        rig.decode.expect(attempt)
        rig.prefill.step(new=[attempt])
        stream.queue(lambda: (go.wait(20), None)[1])
        timer = threading.Timer(0.05, go.set)
        timer.start()
        # An earlier layer's hook would wait here: the tail alone is still with the sender.
        rig.prefill.step((attempt, 0, 2))
        rig.prefill.step(preempted=[attempt.nonce])
        assert all((rig.prefill.kv(attempt)[:, :2] == rig.decode.kv(attempt)[:, :2]).ravel())
        stream.close()

    def test_it_goes_on_after_the_request_is_resumed_elsewhere(self, rig: Rig) -> None:
        attempt = rig.attempt()
        rig.decode.expect(attempt)
        rig.prefill.step((attempt, 0, 2), new=[attempt])
        until(lambda: len(rig.wire.writes) == rig.prefill.layers, "the first chunk is written")
        rig.prefill.step(preempted=[attempt.nonce])
        sent = rig.prefill.kv(attempt)[:, :2]
        for tensor in rig.prefill.memory.tensors:
            tensor[attempt.src[:2]] = 0  # the old blocks have a new owner
        rig.prefill.step((attempt, 2, 4))
        assert rig.decode.outcome(attempt).failure is None
        assert np.array_equal(rig.decode.kv(attempt)[:, :2], sent)

    def test_a_push_that_waits_for_a_grant_is_given_up(self, rig: Rig) -> None:
        attempt = rig.attempt()
        rig.prefill.step((attempt, 0, 2), new=[attempt])
        rig.prefill.step(preempted=[attempt.nonce])
        rig.decode.expect(attempt)
        assert rig.decode.outcome(attempt).failure == "preempted"
        assert not rig.wire.writes
        rig.prefill.free(attempt)

    def test_it_waits_for_the_write_that_reads_the_old_blocks(self, rig: Rig) -> None:
        attempt = rig.attempt()
        hang = Hang()
        rig.wire.behave = hang
        rig.decode.expect(attempt)
        rig.prefill.step((attempt, 0, 2), new=[attempt])
        assert hang.hanging.wait(timeout=20)
        preemption = threading.Thread(target=rig.prefill.step, kwargs={"preempted": [attempt.nonce]})
        preemption.start()
        preemption.join(timeout=0.05)
        assert preemption.is_alive()
        hang.release()
        preemption.join(timeout=20)
        assert not preemption.is_alive()

    def test_it_is_bounded_where_a_write_hangs_and_the_push_fails(self, make_rig: MakeRig) -> None:
        rig = make_rig(waits=HASTY)
        attempt = rig.attempt()
        hang = Hang()
        rig.wire.behave = hang
        rig.decode.expect(attempt)
        rig.prefill.step((attempt, 0, 2), new=[attempt])
        assert hang.hanging.wait(timeout=20)
        rig.prefill.step(preempted=[attempt.nonce])
        assert hang.hanging.is_set()
        hang.release()
        assert rig.decode.outcome(attempt).failure is not None

    def test_requests_that_are_not_pushed_cost_nothing(self, rig: Rig) -> None:
        rig.prefill.step(preempted=[b"unknown".ljust(16)])


def test_every_attempt_ends_exactly_once(make_rig: MakeRig) -> None:
    """Thirty attempts, each treated in another way: none is lost, none ends twice, all blocks come back."""
    rig = make_rig(blocks=256, waits=HASTY)
    rng = np.random.default_rng(11)
    attempts = [rig.attempt(blocks=6) for _ in range(30)]
    rig.wire.behave = Fail(lambda batch: rng.random() < 0.05)
    for number, attempt in enumerate(attempts):
        if number % 5:
            rig.decode.expect(attempt)
        rig.prefill.step((attempt, 0, 3), new=[attempt])
        rig.decode.step()
        if number % 5 == 0:
            rig.decode.expect(attempt)
        if number % 5 == 1:
            rig.decode.stop(attempt, "gone", aborted=bool(number % 2))
        if number % 5 == 2:
            rig.prefill.step(aborted=[attempt.nonce])
        rig.prefill.step((attempt, 3, 6), preempted=[attempt.nonce] if number % 7 == 0 else [])
    outcomes = [rig.decode.outcome(attempt) for attempt in attempts]
    rig.prefill.free(*attempts)
    rig.decode.step()
    assert [len(rig.decode.ended[attempt.req_id]) for attempt in attempts] == [1] * 30
    whole = [rig.same(a) for a, ended in zip(attempts, outcomes, strict=True) if ended.failure is None]
    assert all(whole)
    fences = rig.decode.count(metrics.FENCES, "proven") + rig.decode.count(metrics.FENCES, "quarantined")
    assert fences == 30
