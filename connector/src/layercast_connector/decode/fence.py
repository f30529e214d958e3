"""One attempt's life on one decode worker: when its blocks may be written, and when they may be used or freed.

    REGISTERED ─ask→ GRANTED ─report→ VERIFYING ─drained→ CLOSED
        │stop           │stop / a wait ran out │the proof doesn't come
        ▼               ▼                      ▼
      CLOSED         STOPPING ◀────────────────┘ ─report→ VERIFYING, or quarantine over → CLOSED

Invariant: CLOSED is entered only when nothing of the attempt can be written any more: nothing was ever granted; or
the writer has reported and all that it reported is proven to be here; or lease and transfer time are both over.

Pure: the caller brings the clock (seconds, monotonic) and the facts.
"""

from __future__ import annotations

import enum

from layercast_connector.settings import Timeouts


class State(enum.Enum):
    """Where an attempt stands."""

    REGISTERED = enum.auto()
    GRANTED = enum.auto()
    VERIFYING = enum.auto()
    STOPPING = enum.auto()
    CLOSED = enum.auto()


class Fence:
    """The state machine of one attempt. `failure` is why it failed, or None while it may still succeed."""

    def __init__(self, now: float, waits: Timeouts) -> None:
        self.state = State.REGISTERED
        self.failure: str | None = None
        self.quarantined = False
        self._waits = waits
        self._deadline = now + waits.first_layer
        self._waiting_for = "first_layer"
        self._written_until = now
        self._cells = 0

    @property
    def closed(self) -> bool:
        """Whether the blocks are safe to use (no `failure`) or to free."""
        return self.state is State.CLOSED

    @property
    def arrived(self) -> bool:
        """Closed, with every byte here."""
        return self.closed and self.failure is None

    def grant(self, now: float, sent_cells: int) -> bool:
        """The writer asks for a grant or a longer one, and says how far it is. Returns whether it gets it."""
        if self.state not in (State.REGISTERED, State.GRANTED):
            return False
        self.state = State.GRANTED
        self._written_until = now + self._waits.lease
        if sent_cells > self._cells:
            self._cells = sent_cells
            self._expect("progress", now + self._waits.progress)
        return True

    def answered(self, now: float) -> None:
        """Prefill's HTTP answer came: its compute is over, so the rest is bounded by `done`."""
        if self.state in (State.REGISTERED, State.GRANTED):
            self._expect("done", now + self._waits.done)

    def report(self, now: float, *, ok: bool, quiesced: bool, sent_any: bool, reason: str) -> None:
        """The writer's only report. Late ones, after CLOSED, change nothing."""
        if self.state is State.REGISTERED:
            self._close(reason or "the writer reported before it was granted anything")
        elif self.state in (State.GRANTED, State.STOPPING):
            self._take_report(now, ok, quiesced, sent_any, reason)

    def _take_report(self, now: float, ok: bool, quiesced: bool, sent_any: bool, reason: str) -> None:
        if not ok:
            self.failure = self.failure or reason or "prefill failed"
        if not quiesced:
            self._written_until = max(self._written_until, now)
            self.state = State.STOPPING
        elif sent_any:
            self._written_until = max(self._written_until, now)
            self.state = State.VERIFYING
            self._expect("done", now + self._waits.done)
        else:
            self._close(self.failure or "prefill wrote nothing")

    def drained(self) -> None:
        """All that the report names is proven to have arrived."""
        if self.state is State.VERIFYING:
            self.state = State.CLOSED

    def stop(self, reason: str) -> bool:
        """Gives the attempt up. Returns whether the writer must be told to stop."""
        if self.closed:
            return False
        self.failure = self.failure or reason
        if self.state is State.REGISTERED:
            self._close(reason)
            return False
        if self.state is State.GRANTED:
            self.state = State.STOPPING
            return True
        return False

    def tick(self, now: float) -> bool:
        """Lets waits run out. Returns whether the writer must be told to stop."""
        if self.state is State.STOPPING:
            if now >= self._written_until + self._waits.transfer:
                self.quarantined = True
                self._close(self.failure or "quarantine")
            return False
        if self.closed or now < self._deadline:
            return False
        reason = f"timeout:{self._waiting_for}"
        if self.state is State.VERIFYING:
            self.failure = self.failure or reason
            self.state = State.STOPPING
            return False
        return self.stop(reason)

    def _expect(self, wait: str, deadline: float) -> None:
        self._waiting_for = wait
        self._deadline = deadline

    def _close(self, failure: str) -> None:
        self.failure = self.failure or failure
        self.state = State.CLOSED
