"""The fence against a model of a writer that may do its worst: stall, crash, be stopped and continued, deliver late."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from layercast_connector.decode.fence import Fence, State
from layercast_connector.settings import Timeouts

WAITS = Timeouts(first_layer=12.0, progress=8.0, done=6.0, lease=4.0, transfer=5.0)
CELLS = 4
BOUND = WAITS.first_layer + (CELLS + 1) * WAITS.progress + WAITS.done + WAITS.lease + WAITS.transfer
"""From registration to CLOSED, at most: each wait once, progress once for each cell."""


class Writer:
    """A prefill worker as the design lets it be.

    It checks its lease before a batch; a batch that passed the check lands at most `transfer` later, whatever
    happens to the process meanwhile. SIGSTOP freezes it between two batches; it wakes with its old lease.
    """

    def __init__(self) -> None:
        self.lease_until: float | None = None
        self.alive = True
        self.running = True
        self.reported = False
        self.stopped = False
        self.failed_write = False
        self.started = 0
        self.under_way: list[float] = []
        """Latest landing time of each batch under way."""

    def can_start(self, now: float) -> bool:
        return (
            self.alive and not self.reported and not self.stopped and not self.failed_write
            and self.lease_until is not None and now < self.lease_until and self.started < CELLS
        )  # fmt: skip

    def may_still_write(self, now: float) -> bool:
        """Whether a byte of it can land at `now` or later."""
        return bool(self.under_way) or self.can_start(now)


class FenceAndWriter(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.fence = Fence(self.now, WAITS)
        self.writer = Writer()
        self.cancelled = False

    # The writer.

    @precondition(lambda self: self.writer.alive and self.writer.running and not self.writer.reported)
    @rule(answer_arrives=st.booleans(), ask_took=st.floats(0, 3))
    def ask(self, answer_arrives: bool, ask_took: float) -> None:
        asked_at = self.now
        self.pass_time(ask_took)
        if self.fence.grant(self.now, self.writer.started) and answer_arrives and self.writer.alive:
            self.writer.lease_until = asked_at + WAITS.lease

    @precondition(lambda self: self.writer.running and self.writer.can_start(self.now))
    @rule()
    def start_a_batch(self) -> None:
        self.writer.started += 1
        self.writer.under_way.append(self.now + WAITS.transfer)

    @precondition(lambda self: self.writer.under_way)
    @rule()
    def a_batch_lands(self) -> None:
        self.writer.under_way.pop(0)

    @precondition(lambda self: self.writer.alive and self.writer.running and self.writer.started)
    @rule()
    def a_write_fails(self) -> None:
        """It returns an error; its bytes may land all the same."""
        self.writer.failed_write = True

    @precondition(lambda self: self.writer.alive and self.writer.running and not self.writer.reported)
    @rule(arrives=st.booleans())
    def report(self, arrives: bool) -> None:
        writer = self.writer
        writer.reported = True
        ok = writer.started == CELLS and not writer.failed_write and not writer.stopped
        if arrives:
            self.fence.report(
                self.now, ok=ok, quiesced=not writer.failed_write, sent_any=writer.started > 0, reason="writer"
            )

    @rule()
    def crash(self) -> None:
        self.writer.alive = False

    @rule()
    def sigstop_or_continue(self) -> None:
        self.writer.running = not self.writer.running

    @precondition(lambda self: self.cancelled and self.writer.running)
    @rule()
    def the_cancel_arrives(self) -> None:
        self.writer.stopped = True

    # The decode side.

    @precondition(lambda self: self.fence.state is State.VERIFYING and not self.writer.under_way)
    @rule()
    def the_tails_are_there(self) -> None:
        self.fence.drained()

    @rule()
    def prefill_answers(self) -> None:
        self.fence.answered(self.now)

    @rule()
    def the_request_is_aborted(self) -> None:
        self.cancelled |= self.fence.stop("aborted")

    @rule(seconds=st.floats(0.1, 6))
    def pass_time(self, seconds: float) -> None:
        """Batches land before their time is over; the fence ticks."""
        self.now += seconds
        self.writer.under_way = [latest for latest in self.writer.under_way if latest > self.now]
        self.cancelled |= self.fence.tick(self.now)

    # What must hold.

    @invariant()
    def nothing_is_written_once_it_is_closed(self) -> None:
        if self.fence.closed:
            assert not self.writer.may_still_write(self.now)

    @invariant()
    def it_ends(self) -> None:
        if not self.fence.closed:
            assert self.now <= BOUND + 6

    @invariant()
    def arrived_means_that_all_cells_landed(self) -> None:
        if self.fence.arrived:
            assert self.writer.started == CELLS and not self.writer.under_way

    @invariant()
    def failed_means_that_it_says_why(self) -> None:
        if self.fence.closed and not self.fence.arrived:
            assert self.fence.failure

    def teardown(self) -> None:
        """Left alone, with the writer gone, it closes."""
        if hasattr(self, "fence"):
            deadline = self.now + BOUND
            while not self.fence.closed:
                self.pass_time(1.0)
                assert self.now <= deadline + 2


FenceAndWriter.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)
TestFenceAndWriter = pytest.mark.timeout(60)(FenceAndWriter.TestCase)


class ImpatientFence(Fence):
    """A fence whose quarantine is the lease alone."""

    def __init__(self, now: float, waits: Timeouts) -> None:
        super().__init__(now, waits)
        self._waits = Timeouts(**{name: getattr(waits, name) for name in waits.__struct_fields__} | {"transfer": 1e-9})


def test_the_model_notices_a_quarantine_that_is_too_short() -> None:
    machine = FenceAndWriter()
    machine.begin()
    machine.fence = ImpatientFence(0.0, WAITS)
    machine.ask(answer_arrives=True, ask_took=0.0)
    machine.pass_time(3.9)
    machine.start_a_batch()
    machine.the_request_is_aborted()
    machine.pass_time(0.2)
    with pytest.raises(AssertionError):
        machine.nothing_is_written_once_it_is_closed()
