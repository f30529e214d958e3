"""Restarts, lost connections and hostile peers: what one worker does when the other isn't what it was."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from layercast_connector import metrics
from layercast_connector.protocol import messages as m

from tests.connector.component.fakes import FakePrefill
from tests.connector.component.relay import Relay
from tests.connector.component.rig import CALM, KEY, Decode, Prefill, Rig, until
from tests.connector.component.wire import Wire
from tests.connector.unit.builders import a_report

pytestmark = pytest.mark.timeout(60)

Closing = Callable[[Any], Any]
LIVELY = msgspec.structs.replace(CALM, lease=1.5)
"""As calm, but with signs of life often enough that a lost message is noticed soon."""


def test_a_decode_engine_restarted_at_the_same_address_gets_its_own_prompts(rig: Rig, closing: Closing) -> None:
    """The old one's push is still waiting for a grant; it must neither land on the new one nor get in its way."""
    old = rig.attempt()
    rig.decode.close()
    rig.prefill.push(old)
    reborn = closing(Decode(rig.wire, control_port=rig.decode.port - 1))
    for _ in range(3):
        attempt = rig.attempt(place=reborn.worker.place)
        reborn.expect(attempt)
        rig.prefill.push(attempt)
        assert reborn.outcome(attempt).failure is None
        assert (reborn.kv(attempt) == rig.prefill.kv(attempt)).all()
    rig.prefill.free(old)
    assert (reborn.kv(old) == 255).all()


def test_a_prefill_engine_restarted_writes_what_comes_next(rig: Rig, closing: Closing) -> None:
    first = rig.attempt()
    rig.decode.expect(first)
    rig.prefill.push(first)
    assert rig.decode.outcome(first).failure is None
    rig.prefill.close()
    reborn = closing(Prefill(rig.wire))
    second = rig.attempt()
    rig.decode.expect(second)
    reborn.push(second)
    assert rig.decode.outcome(second).failure is None
    assert (rig.decode.kv(second) == reborn.kv(second)).all()


def test_a_connection_that_is_cut_before_the_greeting_comes_back(
    make_rig: Callable[..., Rig], closing: Closing
) -> None:
    rig = make_rig(waits=LIVELY)
    relay = closing(Relay(rig.decode.port))
    relay.stall()
    attempt = rig.attempt(place=msgspec.structs.replace(rig.decode.worker.place, address=relay.address))
    rig.decode.expect(attempt)
    rig.prefill.push(attempt)
    until(lambda: relay.connections, "the prefill worker has connected")
    relay.cut()
    relay.go_on()
    assert rig.decode.outcome(attempt).failure is None
    assert rig.same(attempt)


def test_another_model_is_refused_and_the_log_says_both(
    make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig(compatibility="model=other")
    attempt = rig.attempt()
    rig.decode.expect(attempt)
    with caplog.at_level(logging.ERROR):
        rig.prefill.push(attempt)
        ended = rig.decode.outcome(attempt)
    assert ended.failure == "handshake refused"
    assert not rig.wire.writes
    assert f"[model=other], decode has [{KEY}]" in caplog.text
    rig.prefill.free(attempt)


def test_another_version_is_refused(rig: Rig, closing: Closing) -> None:
    answer = closing(FakePrefill(rig.decode.port)).greets(version=m.PROTOCOL_VERSION + 1)
    assert isinstance(answer, m.Refused)
    assert str(m.PROTOCOL_VERSION + 1) in answer.reason


def test_another_secret_reaches_nothing(rig: Rig, closing: Closing) -> None:
    stranger = closing(FakePrefill(rig.decode.port, secret=b"guessed"))
    attempt = rig.attempt()
    rig.decode.expect(attempt)
    stranger.says(m.Hello(m.PROTOCOL_VERSION, KEY, "stranger", 0))
    stranger.says(a_report(attempt=attempt.nonce))
    until(lambda: rig.decode.count(metrics.DROPPED, "unauthenticated") == 2, "both are counted")
    rig.prefill.push(attempt)
    assert rig.decode.outcome(attempt).failure is None


def test_who_has_not_greeted_gets_no_grant(rig: Rig, closing: Closing) -> None:
    stranger = closing(FakePrefill(rig.decode.port))
    attempt = rig.attempt()
    rig.decode.expect(attempt)
    stranger.asks(attempt, rig.decode.parts.incarnation)
    assert "hello" in stranger.hears(m.Deny).reason


def test_a_second_prefill_worker_with_the_same_prompt_harms_nobody(rig: Rig, closing: Closing) -> None:
    """It is denied and says that it failed: true for it, and nothing about the writer that was granted."""
    attempt = rig.attempt()
    rig.decode.expect(attempt)
    rig.prefill.step((attempt, 0, 2), new=[attempt])
    until(lambda: len(rig.wire.writes) == rig.prefill.layers, "the first chunk is written")
    second = closing(FakePrefill(rig.decode.port))
    second.greets()
    second.asks(attempt, rig.decode.parts.incarnation)
    assert "another" in second.hears(m.Deny).reason
    second.says(a_report(attempt=attempt.nonce, cells=b"\0" * 4))
    until(lambda: rig.decode.count(metrics.DROPPED, "foreign_report") == 1, "its report is dropped")
    rig.prefill.step((attempt, 2, 4))
    assert rig.decode.outcome(attempt).failure is None
    assert rig.same(attempt)


@pytest.mark.parametrize(
    ("message", "label"),
    [
        pytest.param(b"", "unauthenticated", id="nothing"),
        pytest.param(b"\0" * 4096, "unauthenticated", id="zeros"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n" * 4, "unauthenticated", id="a stranger's protocol"),
    ],
)
def test_hostile_bytes_are_dropped_counted_and_logged_once(
    rig: Rig, closing: Closing, caplog: pytest.LogCaptureFixture, message: bytes, label: str
) -> None:
    stranger = closing(FakePrefill(rig.decode.port))
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            stranger.says_bytes(message)
        until(lambda: rig.decode.count(metrics.DROPPED, label) == 50, "all are counted")
    assert len([record for record in caplog.records if "Dropping" in record.message]) == 1
    attempt = rig.attempt()
    rig.decode.expect(attempt)
    rig.prefill.push(attempt)
    assert rig.decode.outcome(attempt).failure is None


def test_messages_of_the_wrong_kind_are_malformed(rig: Rig, closing: Closing) -> None:
    stranger = closing(FakePrefill(rig.decode.port))
    stranger.says(m.Cancel(b"x" * 16, "you stop"))
    until(lambda: rig.decode.count(metrics.DROPPED, "malformed") == 1, "it is counted")


def test_closing_leaves_no_thread_and_no_port(closing: Closing) -> None:
    before = set(threading.enumerate())
    rig = Rig()
    attempts = [rig.attempt() for _ in range(3)]
    rig.decode.expect(*attempts[:2])
    rig.prefill.step(*((a, 0, 4) for a in attempts), new=attempts)
    assert rig.decode.outcome(attempts[0]).failure is None
    rig.close()
    until(lambda: set(threading.enumerate()) <= before, "all threads have ended")
    closing(Decode(Wire(), control_port=rig.decode.port - 1))


def test_a_port_that_is_taken_is_named(rig: Rig) -> None:
    with pytest.raises(OSError, match=f"control port {rig.decode.port} can't be bound.*control_port"):
        Decode(Wire(), control_port=rig.decode.port - 1)
