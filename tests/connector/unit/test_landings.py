"""Landings: what a report proves, and that every attempt ends exactly once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layercast_connector import metrics
from layercast_connector.protocol import messages as m
from layercast_connector.transport import tails as t

from tests.connector.unit.builders import ATTEMPT, WAITS, a_report, ask
from tests.connector.unit.landing_desk import BLOCKS, STRANGER, WRITER, Desk


def test_an_attempt_has_arrived_when_the_tails_are_the_reported_ones() -> None:
    desk = Desk().granted()
    desk.says(desk.report())
    assert desk.finished() == [], "the report is here, the bytes are not"
    desk.write(blocks=slice(0, 2))
    assert desk.finished() == [], "one block is missing"
    desk.write()
    (one,) = desk.finished()
    assert (one.req_id, one.failure, one.aborted) == ("request", None, False)
    assert desk.finished() == []


def test_bytes_that_were_there_before_prove_nothing() -> None:
    """Decode's blocks hold from earlier exactly what prefill will send: the stamp makes them differ."""
    desk = Desk()
    desk.write()
    desk.register()
    desk.says(ask())
    desk.says(desk.report())
    assert desk.finished() == []


def test_where_completion_is_the_proof_a_report_is_enough() -> None:
    desk = Desk(proof=t.Proof.COMPLETION).granted()
    desk.says(desk.report(digest=b""))
    assert [one.failure for one in desk.finished()] == [None]


def test_a_report_that_says_done_and_leaves_cells_out_is_a_failure() -> None:
    desk = Desk().granted()
    cells = np.ones((2, BLOCKS.size), np.bool_)
    cells[1, 2] = False
    desk.says(desk.report(cells))
    desk.write()
    (one,) = desk.finished()
    assert one.failure == "prefill left blocks out"
    assert desk.dropped() == {"incomplete_report": 1}


def test_a_failed_push_is_reported_once_what_it_sent_has_landed() -> None:
    desk = Desk().granted()
    cells = np.zeros((2, BLOCKS.size), np.bool_)
    cells[0] = True
    desk.says(desk.report(cells, ok=False, reason="write_failed"))
    assert desk.finished() == []
    desk.write(regions=slice(0, 1))
    assert [one.failure for one in desk.finished()] == ["write_failed"]


def test_an_unquiet_writer_is_waited_out() -> None:
    desk = Desk().granted()
    desk.says(desk.report(ok=False, quiesced=False, reason="write_failed"))
    desk.write()
    desk.clock.advance(WAITS.lease + WAITS.transfer - 0.1)
    assert desk.finished() == []
    desk.clock.advance(0.2)
    assert [one.failure for one in desk.finished()] == ["write_failed"]
    assert desk.tally.take()["layercast_fences|quarantined"] == 1


def test_a_report_of_someone_who_is_not_the_writer_changes_nothing() -> None:
    """A pod that got the same prompt is denied, and reports that it wrote nothing: the real writer still writes."""
    desk = Desk().granted()
    desk.says(a_report(cells=t.pack_cells(np.zeros((2, BLOCKS.size), np.bool_))), STRANGER)
    assert desk.finished() == []
    assert desk.dropped() == {"foreign_report": 1}
    desk.write()
    desk.says(desk.report())
    assert [one.failure for one in desk.finished()] == [None]


def test_a_failure_that_comes_before_the_registration_is_not_forgotten() -> None:
    desk = Desk()
    desk.says(a_report(reason="layouts differ"))
    desk.register()
    assert [one.failure for one in desk.finished()] == ["layouts differ"]


def test_failures_of_unknown_attempts_are_bounded() -> None:
    desk = Desk()
    for number in range(4097):
        desk.says(a_report(attempt=number.to_bytes(16, "big")))
    desk.register(attempt=(0).to_bytes(16, "big"))
    assert desk.finished() == []
    desk.register(attempt=(4096).to_bytes(16, "big"))
    assert len(desk.finished()) == 1


@pytest.mark.parametrize(
    ("messages", "counted"),
    [
        pytest.param(lambda d: [d.report(), d.report()], "late_report", id="a second report"),
        pytest.param(lambda d: [d.report(cells=None) and a_report(cells=b"1234567")], "malformed", id="a wrong bitmap"),
    ],
)
def test_is_dropped_and_counted(messages: Any, counted: str) -> None:
    desk = Desk().granted()
    for message in messages(desk):
        desk.says(message)
    assert desk.dropped() == {counted: 1}


def test_a_report_after_the_end_is_dropped_and_counted() -> None:
    desk = Desk().granted()
    desk.write()
    desk.says(desk.report())
    assert len(desk.finished()) == 1
    desk.says(desk.report())
    assert desk.finished() == []
    assert desk.dropped() == {"late_report": 1}


def test_a_stop_tells_the_writer_once_and_waits_for_its_report() -> None:
    desk = Desk().granted()
    desk.landings.stop(ATTEMPT, "gone", aborted=True)
    desk.landings.stop(ATTEMPT, "gone again", aborted=True)
    assert desk.landings.tick() == [(WRITER, m.Cancel(ATTEMPT, "gone"))]
    assert desk.landings.tick() == []
    assert desk.landings.take_finished() == []
    desk.says(a_report(cells=t.pack_cells(np.zeros((2, BLOCKS.size), np.bool_))))
    ((failure, aborted),) = [(one.failure, one.aborted) for one in desk.finished()]
    assert (failure, aborted) == ("gone", True)


def test_a_wait_that_runs_out_tells_the_writer() -> None:
    desk = Desk().granted()
    desk.clock.advance(WAITS.first_layer)
    assert desk.landings.tick() == [(WRITER, m.Cancel(ATTEMPT, "timeout:first_layer"))]


def test_an_answer_without_an_ask_ends_after_done() -> None:
    desk = Desk()
    desk.register()
    desk.landings.answered(ATTEMPT)
    desk.clock.advance(WAITS.done)
    assert [one.failure for one in desk.finished()] == ["timeout:done"]


def test_news_of_unknown_attempts_are_nothing() -> None:
    desk = Desk()
    desk.landings.answered(ATTEMPT)
    desk.landings.stop(ATTEMPT, "gone", aborted=True)
    assert desk.finished() == []


def test_the_exposed_time_runs_until_the_proof() -> None:
    desk = Desk().granted()
    desk.says(desk.report(exposed=0.5))
    desk.clock.advance(0.25)
    desk.write()
    assert len(desk.finished()) == 1
    assert desk.tally.take()[metrics.EXPOSED.name] == [0.75]


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        pytest.param(lambda d: None, 0.25, id="idle"),
        pytest.param(lambda d: d.granted(), 0.01, id="under way"),
        pytest.param(lambda d: (d.granted(), d.says(d.report())), 0.001, id="waiting for a proof"),
        pytest.param(lambda d: d.says(ask()), 0.001, id="waiting for a registration"),
    ],
)
def test_the_control_thread_sleeps_no_longer_than_it_may(state: Any, seconds: float) -> None:
    desk = Desk()
    state(desk)
    assert desk.landings.wait_seconds() <= seconds


def test_bytes_that_dont_come_are_looked_for_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading all tails of a long prompt takes tens of milliseconds, under the lock that the model's thread needs."""
    reads: list[None] = []
    read = t.Tails.read
    monkeypatch.setattr(t.Tails, "read", lambda *args, **kw: (reads.append(None), read(*args, **kw))[1])
    desk = Desk().granted()
    report = desk.report()
    reads.clear()
    desk.says(report)
    for _ in range(50):
        assert desk.finished() == []
    assert len(reads) <= 1
    desk.write(blocks=slice(2, 3))
    for _ in range(50):
        assert desk.finished() == []
    assert len(reads) <= 2
    desk.write()
    assert len(desk.finished()) == 1
