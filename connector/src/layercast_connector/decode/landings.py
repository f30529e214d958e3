"""The attempts that may land on this decode worker: registration, grants, reports, arrival, release.

Two threads meet here. The model thread registers attempts, stops them and takes what is finished; the control thread
answers prefill workers and lets time pass. Each call holds the lock for memory work only, never across I/O: messages
to send are returned, not sent.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from layercast_connector import metrics
from layercast_connector.decode.fence import Fence, State
from layercast_connector.protocol import messages as m
from layercast_connector.recent import remember
from layercast_connector.settings import Timeouts
from layercast_connector.sync.device import Stream
from layercast_connector.transport import tails as t

Blocks = npt.NDArray[np.int64]
Outbox = list[tuple[bytes, m.ToPrefill]]

_REMEMBERED = 4096
"""How many unknown or ended attempts are kept: an `Ask` can arrive before its registration, or after its end."""


@dataclass(frozen=True)
class Finished:
    """An attempt that is over: its blocks hold the KV (no `failure`), or are safe to free."""

    req_id: str
    blocks: Blocks
    failure: str | None
    aborted: bool
    report: m.Report | None


@dataclass
class _Landing:
    req_id: str
    attempt: bytes
    blocks: Blocks
    fence: Fence
    writable: Callable[[], bool]
    """Whether the steps that were queued before the registration have completed on the device."""
    stamp: bytes
    writer: bytes = b""
    report: m.Report | None = None
    reported_at: float = 0.0
    aborted: bool = False
    pending_ask: m.Ask | None = field(default=None)
    missing: tuple[int, int] | None = None
    """A place (region, index of the block) where nothing had arrived when all were looked at."""


class Landings:
    """All attempts of one decode worker.

    Args:
        regions: this worker's registered memory.
        proof: how arrival is proven on this transport.
        stream: the compute stream, whose earlier work must end before a grant.
        incarnation: of this engine; an `Ask` for another is denied.
        waits: bounds of all waits.
        tally: where outcomes are counted.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        regions: list[m.Region],
        proof: t.Proof,
        stream: Stream,
        incarnation: str,
        waits: Timeouts,
        tally: metrics.Tally,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tails = t.Tails(regions) if proof is t.Proof.TAILS else None
        self._num_regions = len(regions)
        self._stream = stream
        self._incarnation = incarnation
        self._waits = waits
        self._tally = tally
        self._clock = clock
        self._lock = threading.Lock()
        self._news = threading.Event()
        """Something is in `_finished`."""
        self._live: dict[bytes, _Landing] = {}
        self._finished: list[Finished] = []
        self._cancels: Outbox = []
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        self._early: OrderedDict[bytes, tuple[bytes, m.Ask, float]] = OrderedDict()
        self._failed_early: OrderedDict[bytes, str] = OrderedDict()

    # Model thread.

    def register(self, req_id: str, attempt: bytes, blocks: Blocks) -> None:
        """Expects KV in `blocks`, shape (n,). Grants wait for what the device has queued until now."""
        stamp = secrets.token_bytes(t.TAIL_BYTES)
        if self._tails is not None:
            self._tails.stamp(blocks, stamp)
        event = self._stream.record()
        landing = _Landing(req_id, attempt, blocks, Fence(self._clock(), self._waits), event.done, stamp)
        with self._lock:
            self._live[attempt] = landing
            early = self._early.pop(attempt, None)
            if early is not None:
                landing.writer, landing.pending_ask = early[0], early[1]
            failure = self._failed_early.pop(attempt, None)
            if failure is not None:
                landing.fence.stop(failure)
                self._retire(landing)

    def stop(self, attempt: bytes, reason: str, *, aborted: bool) -> None:
        """Gives an attempt up; the control thread tells the writer at its next tick."""
        with self._lock:
            landing = self._live.get(attempt)
            if landing is None:
                return
            landing.aborted = landing.aborted or aborted
            if landing.fence.stop(reason):
                self._cancels.append((landing.writer, m.Cancel(attempt, reason)))
            self._retire(landing)

    def answered(self, attempt: bytes) -> None:
        """Prefill's HTTP answer came."""
        with self._lock:
            landing = self._live.get(attempt)
            if landing is not None:
                landing.fence.answered(self._clock())

    def take_finished(self, patience: float = 0.0) -> list[Finished]:
        """What ended since the last call, each attempt once; with `patience`, waits that long for something to end."""
        if patience:
            self._news.wait(patience)
        with self._lock:
            self._news.clear()
            finished, self._finished = self._finished, []
        return finished

    # Control thread.

    def on_message(self, writer: bytes, message: m.ToDecode) -> Outbox:
        """Answers an `Ask` or takes a `Report` from the prefill worker with identity `writer`."""
        with self._lock:
            if isinstance(message, m.Ask):
                return self._on_ask(writer, message)
            if isinstance(message, m.Report):
                self._on_report(writer, message)
            return []

    def tick(self) -> Outbox:
        """Lets time pass: grants that waited for the device, proofs of arrival, waits that ran out, cancels."""
        now = self._clock()
        with self._lock:
            outbox = list(self._cancels)
            self._cancels.clear()
            for landing in list(self._live.values()):
                outbox.extend(self._advance(landing, now))
            outbox.extend(self._deny_early(now))
        return outbox

    def wait_seconds(self) -> float:
        """How long the control thread may sleep for messages before the next `tick`."""
        with self._lock:
            if self._early or any(
                landing.pending_ask or landing.fence.state is State.VERIFYING for landing in self._live.values()
            ):
                return 0.001
            return 0.01 if self._live else 0.25

    def _on_ask(self, writer: bytes, ask: m.Ask) -> Outbox:
        if ask.decode_incarnation != self._incarnation:
            return [(writer, m.Deny(ask.attempt, "this decode engine was restarted since"))]
        landing = self._live.get(ask.attempt)
        if landing is not None:
            landing.writer = landing.writer or writer
            if landing.writer != writer:
                return [(writer, m.Deny(ask.attempt, "another prefill worker writes for this attempt"))]
            return self._grant(landing, ask)
        if ask.attempt in self._ended:
            return [(writer, m.Deny(ask.attempt, "the attempt is over"))]
        _, _, since = self._early.get(ask.attempt, (writer, ask, self._clock()))
        forgotten = remember(self._early, ask.attempt, (writer, ask, since), _REMEMBERED)
        if forgotten is None:
            return []
        old, (old_writer, _, _) = forgotten
        return [(old_writer, m.Deny(old, "too many unknown attempts"))]

    def _grant(self, landing: _Landing, ask: m.Ask) -> Outbox:
        if not landing.writable():
            landing.pending_ask = ask
            return []
        landing.pending_ask = None
        if not landing.fence.grant(self._clock(), ask.sent_cells):
            return [(landing.writer, m.Deny(ask.attempt, landing.fence.failure or "the attempt is over"))]
        block_ids = landing.blocks.astype("<u4").tobytes()
        return [(landing.writer, m.Grant(ask.attempt, ask.number, self._waits.lease, block_ids))]

    def _on_report(self, writer: bytes, report: m.Report) -> None:
        landing = self._live.get(report.attempt)
        if landing is None and report.attempt not in self._ended:
            self._remember_failure(report)
            return
        if landing is None or landing.report is not None:
            self._tally.count(metrics.DROPPED, "late_report")
            return
        if landing.writer not in (b"", writer):  # it was denied, and has nothing to say about the real writer's bytes
            self._tally.count(metrics.DROPPED, "foreign_report")
            return
        try:
            cells = t.unpack_cells(report.cells, self._num_regions, landing.blocks.size)
        except ValueError:
            self._tally.count(metrics.DROPPED, "malformed")
            return
        if report.ok and not cells.all():
            self._tally.count(metrics.DROPPED, "incomplete_report")
            report = m.Report(
                report.attempt, False, report.quiesced, "prefill left blocks out", report.cells, report.digest, 0, 0, 0
            )
        landing.report = report
        landing.reported_at = self._clock()
        landing.fence.report(
            landing.reported_at,
            ok=report.ok,
            quiesced=report.quiesced,
            sent_any=bool(cells.any()),
            reason=report.reason,
        )
        self._advance(landing, landing.reported_at)

    def _remember_failure(self, report: m.Report) -> None:
        """Prefill can fail before our own step has registered the attempt; nothing was granted, so it wrote nothing."""
        remember(self._failed_early, report.attempt, report.reason or "prefill failed", _REMEMBERED)

    def _advance(self, landing: _Landing, now: float) -> Outbox:
        outbox: Outbox = []
        if landing.pending_ask is not None:
            outbox = self._grant(landing, landing.pending_ask)
        if landing.fence.state is State.VERIFYING and self._proven(landing):
            landing.fence.drained()
        if landing.fence.tick(now):
            outbox.append((landing.writer, m.Cancel(landing.attempt, landing.fence.failure or "")))
        self._retire(landing)
        return outbox

    def _proven(self, landing: _Landing) -> bool:
        report = landing.report
        if self._tails is None or report is None:
            return report is not None
        if landing.missing is not None:  # one place is quickly looked at, all of a long prompt are not
            region, index = landing.missing
            if self._tails.holds(landing.stamp, region, int(landing.blocks[index])):
                return False
        cells = t.unpack_cells(report.cells, self._num_regions, landing.blocks.size)
        tails = self._tails.read(landing.blocks)
        landing.missing = t.missing(tails, cells, landing.stamp)
        return landing.missing is None and t.digest(tails, cells) == report.digest

    def _retire(self, landing: _Landing) -> None:
        if not landing.fence.closed or landing.attempt not in self._live:
            return
        del self._live[landing.attempt]
        remember(self._ended, landing.attempt, None, _REMEMBERED)
        failure = landing.fence.failure
        self._finished.append(Finished(landing.req_id, landing.blocks, failure, landing.aborted, landing.report))
        self._news.set()
        self._tally.count(metrics.FENCES, "quarantined" if landing.fence.quarantined else "proven")
        if failure is None and landing.report is not None:
            self._tally.observe(metrics.EXPOSED, landing.report.exposed + self._clock() - landing.reported_at)

    def _deny_early(self, now: float) -> Outbox:
        """Unknown attempts wait for their registration as long as prefill waits for a grant, and no longer."""
        outbox: Outbox = []
        while self._early:
            attempt, (writer, _, since) = next(iter(self._early.items()))
            if now - since < self._waits.done:
                break
            del self._early[attempt]
            outbox.append((writer, m.Deny(attempt, "decode doesn't know this attempt")))
        return outbox
