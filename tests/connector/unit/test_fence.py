"""The fence as a table: each state, each thing that can happen, and where it leads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from layercast_connector.decode.fence import Fence, State
from layercast_connector.settings import Timeouts

WAITS = Timeouts(first_layer=100.0, progress=20.0, done=10.0, lease=4.0, transfer=6.0)

Step = Callable[[Fence], object]


def registered() -> Fence:
    return Fence(0.0, WAITS)


def granted() -> Fence:
    fence = registered()
    assert fence.grant(0.0, 0)
    return fence


def verifying() -> Fence:
    fence = granted()
    report(fence)
    return fence


def stopping() -> Fence:
    fence = granted()
    assert fence.stop("given up")
    return fence


def arrived() -> Fence:
    fence = verifying()
    fence.drained()
    return fence


def report(fence: Fence, now: float = 1.0, *, ok: bool = True, quiesced: bool = True, sent_any: bool = True) -> None:
    fence.report(now, ok=ok, quiesced=quiesced, sent_any=sent_any, reason="" if ok else "broken")


R, G, V, S, C = State.REGISTERED, State.GRANTED, State.VERIFYING, State.STOPPING, State.CLOSED

TABLE: list[tuple[str, Callable[[], Fence], Step, State, str | None]] = [
    ("a first ask is granted", registered, lambda f: f.grant(1, 0), G, None),
    ("a stop before any grant closes at once", registered, lambda f: f.stop("gone"), C, "gone"),
    ("a report before any grant closes as failed", registered, lambda f: report(f, ok=False), C, "broken"),
    ("even a good report before any grant has brought nothing", registered, report, C, "the writer reported before"),
    ("nobody asks: the wait for the first layer closes", registered, lambda f: f.tick(100), C, "timeout:first_layer"),
    ("before its deadline nothing happens", registered, lambda f: f.tick(99.9), R, None),
    (
        "prefill answered and nobody asked: done's wait closes",
        registered,
        lambda f: (f.answered(5), f.tick(15)),
        C,
        "timeout:done",
    ),
    ("a renewal is granted", granted, lambda f: f.grant(3, 1), G, None),
    ("a good report must be proven", granted, report, V, None),
    ("a bad report of a quiet writer is proven too", granted, lambda f: report(f, ok=False), V, "broken"),
    ("a writer that wrote nothing needs no proof", granted, lambda f: report(f, ok=False, sent_any=False), C, "broken"),
    ("a good report of nothing is a failure", granted, lambda f: report(f, sent_any=False), C, "prefill wrote nothing"),
    ("an unquiet writer is waited out", granted, lambda f: report(f, ok=False, quiesced=False), S, "broken"),
    ("a stop after a grant is waited out", granted, lambda f: f.stop("gone"), S, "gone"),
    ("progress stops: waited out", granted, lambda f: (f.grant(1, 5), f.tick(21)), S, "timeout:progress"),
    ("progress renews its own wait", granted, lambda f: (f.grant(1, 5), f.grant(20, 6), f.tick(39)), G, None),
    (
        "renewals without progress don't",
        granted,
        lambda f: (f.grant(1, 5), f.grant(20, 5), f.tick(21)),
        S,
        "timeout:progress",
    ),
    ("proof closes a good one", verifying, lambda f: f.drained(), C, None),
    ("no proof in time: waited out", verifying, lambda f: f.tick(11), S, "timeout:done"),
    ("a stop while proving keeps on proving", verifying, lambda f: f.stop("gone"), V, "gone"),
    ("a second report while proving changes nothing", verifying, lambda f: report(f, ok=False), V, None),
    ("no grant while proving", verifying, lambda f: f.grant(2, 9), V, None),
    ("the quarantine must be over", stopping, lambda f: f.tick(9.9), S, "given up"),
    ("a lease and a transfer after the last grant it is", stopping, lambda f: f.tick(10), C, "given up"),
    ("a stopped writer that reports ends the quarantine by proof", stopping, report, V, "given up"),
    ("a stopped writer gets no grant", stopping, lambda f: f.grant(2, 9), S, "given up"),
    ("a proof without a report proves nothing", stopping, lambda f: f.drained(), S, "given up"),
    ("after the end a report is nothing", arrived, lambda f: report(f, ok=False), C, None),
    ("after the end a stop is nothing", arrived, lambda f: f.stop("late"), C, None),
    ("after the end a grant is nothing", arrived, lambda f: f.grant(2, 0), C, None),
    ("after the end time is nothing", arrived, lambda f: f.tick(1e6), C, None),
    ("after the end an answer is nothing", arrived, lambda f: (f.answered(1), f.tick(1e6)), C, None),
]


@pytest.mark.parametrize(("make", "step", "state", "failure"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_transition(make: Callable[[], Fence], step: Step, state: State, failure: str | None) -> None:
    fence = make()
    step(fence)
    assert fence.state is state
    assert fence.failure == failure or (failure is not None and str(fence.failure).startswith(failure))


@pytest.mark.parametrize(
    ("make", "step", "told"),
    [
        pytest.param(registered, lambda f: f.stop("x"), False, id="nobody was granted: nobody is told"),
        pytest.param(granted, lambda f: f.stop("x"), True, id="a granted writer is told"),
        pytest.param(granted, lambda f: f.tick(1e3), True, id="a granted writer is told when a wait runs out"),
        pytest.param(stopping, lambda f: f.stop("x"), False, id="a writer is told once"),
        pytest.param(stopping, lambda f: f.tick(5), False, id="time doesn't tell a stopped writer again"),
        pytest.param(verifying, lambda f: f.stop("x"), False, id="a writer that has reported needs no telling"),
        pytest.param(verifying, lambda f: f.tick(1e3), False, id="nor when its proof doesn't come"),
    ],
)
def test_who_must_be_told_to_stop(make: Callable[[], Fence], step: Callable[[Fence], bool], told: bool) -> None:
    assert step(make()) is told


def test_only_a_quarantine_counts_as_one() -> None:
    waited_out, proven = stopping(), arrived()
    waited_out.tick(1e3)
    assert waited_out.quarantined
    assert not proven.quarantined


def test_arrived_means_closed_and_without_a_failure() -> None:
    assert arrived().arrived
    failed = stopping()
    failed.tick(1e3)
    assert failed.closed and not failed.arrived
    assert not verifying().arrived


def test_the_first_failure_is_the_one_that_is_told() -> None:
    fence = stopping()
    report(fence, ok=False)
    assert fence.failure == "given up"
