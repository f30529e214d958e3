"""Landings: who is granted, when, and who is denied."""

from __future__ import annotations

import pytest
from layercast_connector.protocol import messages as m

from tests.connector.unit.builders import ATTEMPT, WAITS, ask
from tests.connector.unit.landing_desk import BLOCKS, STRANGER, WRITER, Desk, Device


def test_a_registered_attempt_is_granted_its_blocks_for_a_lease() -> None:
    desk = Desk()
    desk.register()
    answer = m.Grant(ATTEMPT, 7, WAITS.lease, BLOCKS.astype("<u4").tobytes())
    assert desk.says(ask(number=7)) == [(WRITER, answer)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(ask(incarnation="decode-0"), "restarted", id="an ask of another incarnation"),
        pytest.param(ask(), "another prefill worker", id="an ask of a second writer"),
    ],
)
def test_is_denied(message: m.Ask, reason: str) -> None:
    ((peer, answer),) = Desk().granted().says(message, STRANGER)
    assert peer == STRANGER
    assert isinstance(answer, m.Deny) and reason in answer.reason


def test_an_ended_attempt_is_denied() -> None:
    desk = Desk()
    desk.register()
    desk.landings.stop(ATTEMPT, "gone", aborted=True)
    ((_, answer),) = desk.says(ask())
    assert isinstance(answer, m.Deny) and "over" in answer.reason


def test_an_ask_before_the_registration_is_granted_after_it() -> None:
    desk = Desk()
    assert desk.says(ask()) == []
    assert desk.landings.tick() == []
    desk.register()
    ((writer, answer),) = desk.landings.tick()
    assert writer == WRITER and isinstance(answer, m.Grant)


@pytest.mark.parametrize("repeats", [1, 4], ids=["asked once", "asked again and again"])
def test_an_unknown_attempt_is_denied_after_a_while(repeats: int) -> None:
    desk = Desk()
    for number in range(repeats):
        assert desk.says(ask(number=number)) == []
        assert desk.landings.tick() == []
        desk.clock.advance(WAITS.done / repeats)
    ((writer, answer),) = desk.landings.tick()
    assert writer == WRITER and isinstance(answer, m.Deny)


def test_unknown_attempts_are_bounded() -> None:
    desk = Desk()
    answers = [desk.says(ask(attempt=number.to_bytes(16, "big"))) for number in range(4100)]
    assert sum(len(answer) for answer in answers) == 4
    assert all(isinstance(message, m.Deny) for answer in answers for _, message in answer)


def test_a_grant_waits_for_the_device_and_then_comes_by_itself() -> None:
    device = Device()
    desk = Desk(stream=device)
    desk.register()
    assert desk.says(ask(number=1)) == []
    assert desk.says(ask(number=2)) == []
    assert desk.landings.tick() == []
    device.idle = True
    ((_, answer),) = desk.landings.tick()
    assert isinstance(answer, m.Grant) and answer.number == 2
    assert desk.landings.tick() == []
