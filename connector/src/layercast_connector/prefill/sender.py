"""The thread that writes to one decode worker: one batch per layer, for all requests of the step together.

A thread per peer, so that a peer that hangs holds up nobody else. It takes work in the order in which the gate
released it, checks lease and stop just before every batch, and closes each push with exactly one report.

The gap that stays: a batch that passed the lease check is on its way for at most `transfer` seconds. Decode's
quarantine is `lease + transfer` for that reason.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layercast_connector import metrics
from layercast_connector.plan.runs import RegionPair, describe, join_descriptors, join_runs
from layercast_connector.prefill.push import Push, PushChunk
from layercast_connector.protocol import messages as m
from layercast_connector.sync.device import Event
from layercast_connector.transport.base import TransferError, Transport
from layercast_connector.transport.tails import Tails

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerReady:
    """A layer of a step is computed, or will be when `event` completes; `released` is when the gate let it go."""

    layer: int
    chunks: Sequence[PushChunk]
    event: Event | None
    released: float


@dataclass(frozen=True)
class Wake:
    """Something changed for this push: it was granted, or must stop."""

    push: Push


@dataclass(frozen=True)
class Barrier:
    """Set once everything that was queued before it is written or parked."""

    reached: threading.Event


class _End:
    """Ends the thread."""


@dataclass(frozen=True)
class Target:
    """The peer's memory: the transport's session, and each local region's counterpart."""

    session: str
    pairs: Sequence[RegionPair]


class Sender:
    """Writes to one peer.

    Args:
        transport: where batches go.
        layer_regions: for each layer, which regions (a slice) are its.
        tails: this worker's tails where arrival needs proof, else None.
        report: takes a closed push's report (thread-safe).
        tally: where outcomes are counted.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        transport: Transport,
        layer_regions: Sequence[slice],
        tails: Tails | None,
        report: Callable[[Push, m.Report], None],
        tally: metrics.Tally,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._layer_regions = layer_regions
        self._tails = tails
        self._report = report
        self._tally = tally
        self._clock = clock
        self._target: Target | None = None
        self._queue: queue.SimpleQueue[LayerReady | Wake | Barrier | _End] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="layercast-sender", daemon=True)
        self._thread.start()

    def aim(self, target: Target) -> None:
        """The handshake is done; from now on grants can be used."""
        self._target = target

    def put(self, work: LayerReady | Wake | Barrier) -> None:
        """Queues work; never blocks."""
        self._queue.put(work)

    def end(self) -> None:
        """Lets the thread end after what is queued."""
        self._queue.put(_End())

    def close(self, wait: float = 30.0) -> None:
        """Ends the thread and waits for it: afterwards nothing reads the memory, unless a write hangs for longer."""
        self.end()
        self._thread.join(wait)

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            try:
                if isinstance(work, LayerReady):
                    self._layer(work)
                elif isinstance(work, Wake):
                    self._wake(work.push)
                elif isinstance(work, Barrier):
                    work.reached.set()
                else:
                    return
            except Exception:
                logger.exception("The sender failed; its pushes fail with it")
                self._fail(work)

    def _layer(self, ready: LayerReady) -> None:
        computed = ready.released
        if ready.event is not None and not ready.event.done():
            ready.event.wait()
            computed = self._clock()
        now = self._clock()
        for chunk in ready.chunks:
            chunk.push.last_event = computed
        sendable = [chunk for chunk in ready.chunks if self._sendable(chunk, ready.layer, now)]
        if sendable:
            self._write(ready.layer, sendable)
            for chunk in sendable:
                self._close_if_over(chunk.push)

    def _sendable(self, chunk: PushChunk, layer: int, now: float) -> bool:
        push = chunk.push
        if push.closed:
            return False
        if self._target is not None and push.may_write(now) and not push.parked:
            return True
        push.parked.append((chunk, layer))
        return False

    def _wake(self, push: Push) -> None:
        while push.parked and self._target is not None and push.may_write(self._clock()):
            chunk, layer = push.parked[0]
            self._write(layer, [chunk])
            if push.parked:  # it counts as parked while it is read: a preemption looks, from the model's thread
                push.parked.popleft()
        if not push.closed and push.stop_reason is not None:
            self._close(push)
        self._close_if_over(push)

    def _write(self, layer: int, chunks: Sequence[PushChunk]) -> None:
        """One batch for a layer. A failure fails exactly the pushes in it."""
        target = self._target
        assert target is not None
        regions = self._layer_regions[layer]
        runs = join_runs([chunk.runs_to(chunk.push.grant) for chunk in chunks if chunk.push.grant])
        batch = join_descriptors([describe(runs, pair) for pair in target.pairs[regions]])
        per_block = sum(pair.block_bytes for pair in target.pairs[regions])
        for chunk in chunks:
            chunk.push.mark(regions, chunk, self._tails)
        try:
            self._transport.write(target.session, batch)
        except TransferError as error:
            logger.warning("A write failed: %s", error)
            self._fail_writes(chunks)
            return
        now = self._clock()
        for chunk in chunks:
            chunk.push.bytes_sent += per_block * chunk.src.size
            chunk.push.last_write = now

    def _close_if_over(self, push: Push) -> None:
        if not push.closed and push.complete and not push.parked:
            self._close(push)

    def _fail_writes(self, chunks: Sequence[PushChunk]) -> None:
        for chunk in chunks:
            if not chunk.push.closed:
                chunk.push.quiesced = False
                chunk.push.stop_reason = chunk.push.stop_reason or "write_failed"
                self._close(chunk.push)

    def _fail(self, work: object) -> None:
        """After a fault of ours nothing is known about what was written."""
        chunks = work.chunks if isinstance(work, LayerReady) else ()
        pushes = [work.push] if isinstance(work, Wake) else [chunk.push for chunk in chunks]
        for push in pushes:
            if not push.closed:
                push.quiesced = False
                push.stop_reason = push.stop_reason or "sender_fault"
                self._close(push)

    def _close(self, push: Push) -> None:
        report = push.report(len(self._layer_regions))
        push.parked.clear()
        self._tally.count(metrics.PUSHES, "done" if report.ok else "failed")
        self._tally.count(metrics.PUSHED_BYTES, amount=report.bytes_sent)
        self._tally.count(metrics.PUSHED_LAYERS, amount=report.layers)
        self._report(push, report)  # first: once it is closed, the model thread may give the peer up
        push.closed = True
