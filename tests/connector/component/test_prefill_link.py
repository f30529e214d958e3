"""A prefill worker against a decode worker that says what the test wants: grants, leases, handshakes, losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from layercast_connector.protocol import messages as m
from layercast_connector.transport import tails as t

from tests.connector.component.fakes import FakeDecode, grant
from tests.connector.component.rig import HASTY, Attempt, Prefill, Rig, until
from tests.connector.component.wire import KvMemory

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(waits=msgspec.structs.replace(HASTY, done=20.0))


@pytest.fixture
def decode(rig: Rig, closing: Callable[[Any], Any]) -> FakeDecode:
    """A stand-in beside the rig's own decode worker, with the same layout."""
    fake: FakeDecode = closing(FakeDecode(rig.wire, KvMemory(4, 64)))
    return fake


def pushed(prefill: Prefill, rig: Rig, decode: FakeDecode) -> Attempt:
    attempt = rig.attempt(place=decode.place)
    prefill.push(attempt)
    return attempt


def test_a_grant_for_the_last_of_many_asks_is_a_fresh_one(rig: Rig, decode: FakeDecode) -> None:
    """Decode was busy for longer than a lease and answers the last ask only: its lease counts from that ask."""
    attempt = pushed(rig.prefill, rig, decode)
    decode.greets()
    asks = [decode.hears(m.Ask) for _ in range(10)]
    decode.grants(attempt, asks[-1])
    until(lambda: len(rig.wire.writes) == 4, "all layers are written under the grant")
    assert decode.hears(m.Report).ok


def test_a_greeting_that_got_lost_is_repeated(rig: Rig, decode: FakeDecode) -> None:
    attempt = pushed(rig.prefill, rig, decode)
    decode.hears(m.Hello)
    decode.greets()
    decode.grants(attempt, decode.hears(m.Ask))
    assert decode.hears(m.Report).ok


def test_nothing_is_written_under_a_grant_that_was_not_asked_for(rig: Rig, decode: FakeDecode) -> None:
    attempt = pushed(rig.prefill, rig, decode)
    decode.greets()
    ask = decode.hears(m.Ask)
    decode.grants(attempt, m.Ask(ask.attempt, ask.decode_incarnation, ask.number + 1000, 0))
    decode.hears(m.Ask)
    assert not rig.wire.writes
    decode.grants(attempt, ask, lease=10.0)
    assert decode.hears(m.Report, seconds=20) is not None


def test_a_lease_counts_from_the_ask_and_is_never_longer_than_our_own(rig: Rig, decode: FakeDecode) -> None:
    """The first layer is written; then decode renews nothing, and nothing more is written."""
    attempt = rig.attempt(place=decode.place, blocks=8)
    rig.prefill.step((attempt, 0, 2), new=[attempt])
    decode.greets()
    ask = decode.hears(m.Ask)
    decode.grants(attempt, ask, lease=1000.0)
    until(lambda: len(rig.wire.writes) == 4, "the first chunk is written")
    for _ in range(6):  # a third of a lease passes between two asks
        decode.hears(m.Ask)
    rig.prefill.step((attempt, 2, 8))
    last = decode.hears(m.Ask)
    assert len(rig.wire.writes) == 4
    decode.grants(attempt, last)
    assert decode.hears(m.Report).ok
    assert np.array_equal(decode.memory.blocks(attempt.dst), rig.prefill.kv(attempt))


@pytest.mark.parametrize(
    "block_ids",
    [
        pytest.param(np.arange(60, 64, dtype="<u4").tobytes() + b"\0\0\0\0", id="one block too many"),
        pytest.param(np.array([1, 2, 3, 64], "<u4").tobytes(), id="a block that decode doesn't have"),
        pytest.param(np.arange(4, dtype="<u4").tobytes()[:-1], id="a torn number"),
        pytest.param(b"", id="no blocks"),
    ],
)
def test_a_grant_of_other_blocks_than_asked_for_ends_the_push(rig: Rig, decode: FakeDecode, block_ids: bytes) -> None:
    attempt = pushed(rig.prefill, rig, decode)
    decode.greets()
    decode.says(grant(attempt, decode.hears(m.Ask), block_ids=block_ids))
    report = decode.hears(m.Report)
    assert not report.ok and "blocks" in report.reason
    assert not rig.wire.writes


def test_a_renewal_cant_move_a_push_to_other_blocks(rig: Rig, decode: FakeDecode) -> None:
    attempt = rig.attempt(place=decode.place, blocks=4)
    rig.prefill.step((attempt, 0, 2), new=[attempt])
    decode.greets()
    decode.grants(attempt, decode.hears(m.Ask))
    until(lambda: len(rig.wire.writes) == 4, "the first chunk is written")
    other = (attempt.dst + 1) % 64
    decode.says(grant(attempt, decode.hears(m.Ask), block_ids=other.astype("<u4").tobytes()))
    rig.prefill.step((attempt, 2, 4))
    assert decode.hears(m.Report).ok
    assert np.array_equal(decode.memory.blocks(attempt.dst), rig.prefill.kv(attempt))


def other_table(decode: FakeDecode, **changes: Any) -> m.Regions:
    return msgspec.structs.replace(decode.table, **changes)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(lambda d: m.Refused("prefill has [a], decode has [b]"), "refused", id="a refusal"),
        pytest.param(lambda d: other_table(d, incarnation="next"), "restarted", id="another incarnation"),
        pytest.param(lambda d: other_table(d, regions=d.table.regions[:-1]), "layouts", id="another layout"),
        pytest.param(lambda d: other_table(d, proof="completion"), "proof", id="another proof of arrival"),
        pytest.param(lambda d: m.Deny(b"x" * 16, "unknown"), None, id="a denial of another attempt"),
    ],
)
def test_a_handshake_that_fails_ends_the_push_at_once(
    rig: Rig, decode: FakeDecode, answer: Callable[[FakeDecode], Any], reason: str | None
) -> None:
    attempt = pushed(rig.prefill, rig, decode)
    decode.hears(m.Hello)
    decode.says(answer(decode))
    if reason is None:
        decode.says(decode.table)
        decode.grants(attempt, decode.hears(m.Ask))
        assert decode.hears(m.Report).ok
    else:
        report = decode.hears(m.Report)
        assert not report.ok and reason in report.reason
        rig.prefill.free(attempt)


def test_after_a_refusal_the_next_push_asks_anew(rig: Rig, decode: FakeDecode) -> None:
    pushed(rig.prefill, rig, decode)
    decode.hears(m.Hello)
    decode.says(m.Refused("not yet"))
    assert not decode.hears(m.Report).ok
    second = pushed(rig.prefill, rig, decode)
    decode.greets()
    decode.grants(second, decode.hears(m.Ask))
    assert decode.hears(m.Report).ok


@pytest.mark.parametrize("message", [m.Cancel, m.Deny], ids=["cancelled", "denied"])
def test_a_push_that_may_not_go_on_is_reported_with_what_it_wrote(
    rig: Rig, decode: FakeDecode, message: Callable[[bytes, str], Any]
) -> None:
    attempt = rig.attempt(place=decode.place, blocks=4)
    rig.prefill.step((attempt, 0, 2), new=[attempt])
    decode.greets()
    decode.grants(attempt, decode.hears(m.Ask))
    until(lambda: len(rig.wire.writes) == 4, "the first chunk is written")
    decode.says(message(attempt.nonce, "no longer wanted"))
    report = decode.hears(m.Report)
    assert (report.ok, report.quiesced, report.reason) == (False, True, "no longer wanted")
    assert t.unpack_cells(report.cells, 8, 4).tolist() == [[True, True, False, False]] * 8
    rig.prefill.step((attempt, 2, 4))
    rig.prefill.free(attempt)
    assert len(rig.wire.writes) == 4


def test_a_cancel_after_the_report_gets_the_same_report_again(rig: Rig, decode: FakeDecode) -> None:
    attempt = pushed(rig.prefill, rig, decode)
    decode.greets()
    decode.grants(attempt, decode.hears(m.Ask))
    first = decode.hears(m.Report)
    decode.says(m.Cancel(attempt.nonce, "did you say something?"))
    assert decode.hears(m.Report) == first


def test_a_decode_worker_that_never_grants_is_given_up(make_rig: Callable[..., Rig], closing: Any) -> None:
    rig = make_rig(waits=HASTY)
    decode = closing(FakeDecode(rig.wire, KvMemory(4, 64)))
    attempt = pushed(rig.prefill, rig, decode)
    decode.greets()
    report = decode.hears(m.Report)
    assert "no grant" in report.reason
    rig.prefill.free(attempt)


@pytest.mark.parametrize("address", ["tcp://no such host:1", "udp://127.0.0.1:1"])
def test_a_place_that_cant_be_connected_to_fails_the_push_and_not_the_link(rig: Rig, address: str) -> None:
    lost = rig.attempt(place=m.Worker(address, "elsewhere"))
    rig.prefill.push(lost)
    rig.prefill.free(lost)
    attempt = rig.attempt()
    rig.decode.expect(attempt)
    rig.prefill.push(attempt)
    assert rig.decode.outcome(attempt).failure is None


def test_what_cant_be_opened_is_dropped_and_counted(rig: Rig, decode: FakeDecode) -> None:
    attempt = pushed(rig.prefill, rig, decode)
    decode.greets()
    ask = decode.hears(m.Ask)
    decode.says_bytes(b"")
    decode.says_bytes(b"x" * 100)
    decode.says(m.StatusRequest())
    decode.grants(attempt, ask)
    assert decode.hears(m.Report).ok
    counts = rig.prefill.parts.tally.take()
    assert counts["layercast_dropped_messages|unauthenticated"] == 2
    assert counts["layercast_dropped_messages|malformed"] == 1


def test_the_last_report_gets_out_although_the_peer_is_given_up(rig: Rig, decode: FakeDecode, closing: Any) -> None:
    """A push ends, and the next step goes to a decode worker that is new: the idle one's connection is closed."""
    attempt = pushed(rig.prefill, rig, decode)
    decode.greets()
    decode.grants(attempt, decode.hears(m.Ask))
    rig.prefill.free(attempt)
    rig.prefill.step(new=[rig.attempt()])
    assert decode.hears(m.Report).ok
