"""Prefill's worker half: what vLLM's hooks call. Stages layers in the gate, and hands released ones to the senders."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layercast_connector.control import DropLog
from layercast_connector.parts import WorkerParts
from layercast_connector.prefill.link import Link
from layercast_connector.prefill.peer import PeerKey
from layercast_connector.prefill.push import Push, PushChunk, new_push
from layercast_connector.prefill.sender import Barrier, LayerReady, Sender, Wake
from layercast_connector.prefill.steps import Chunk, NewPush, PrefillStep
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import Codec
from layercast_connector.sync.device import Event
from layercast_connector.sync.gate import GateError, LayerGate, Strategy
from layercast_connector.transport.tails import Proof, Tails, proof_for

logger = logging.getLogger(__name__)


def layer_slices(regions: Sequence[m.Region]) -> tuple[list[str], list[slice]]:
    """The layers' names in order, and which of the regions are each one's."""
    names = list(dict.fromkeys(region.layer for region in regions))
    owners = [region.layer for region in regions]
    return names, [slice(owners.index(name), owners.index(name) + owners.count(name)) for name in names]


@dataclass
class _Known:
    push: Push
    sender: Sender
    key: PeerKey
    finished: bool = False
    """vLLM has finished the request, so it will free the blocks when we say so."""


class PrefillWorker:
    """See the module. All public methods but `close` run in the model thread.

    Raises:
        OSError: a port is taken.
        TransferError: the memory can't be registered.
    """

    def __init__(self, parts: WorkerParts) -> None:
        settings, regions, tally = parts.settings, parts.regions, parts.tally
        parts.transport.register(regions)
        self._waits = settings.timeouts
        self._rank = parts.rank
        self._transport = parts.transport
        self._tally = tally
        self._proof = proof_for(settings.protocol)
        self._tails = Tails(regions) if self._proof is Proof.TAILS else None
        self._num_regions = len(regions)
        names, self._layer_regions = layer_slices(regions)
        self._gate = LayerGate(names, parts.stream, self._release, Strategy(settings.layer_sync), settings.lookahead)
        hello = m.Hello(m.PROTOCOL_VERSION, parts.compatibility, parts.incarnation, parts.rank)
        codec = Codec[m.ToPrefill](parts.secret, m.ToPrefill)
        self._link = Link(hello, regions, self._proof, codec, settings.timeouts, DropLog(tally))
        self._news = threading.Event()
        """A push has ended since the last `take_finished`."""
        self._senders: dict[PeerKey, Sender] = {}
        self._pushes: dict[bytes, _Known] = {}
        self._chunks: dict[Sender, list[PushChunk]] = {}

    def preempt(self, step: PrefillStep) -> None:
        """`handle_preemptions`: before the blocks of preempted requests get a new owner, what reads them must end.

        What was released by then is written first. A push with layers that still wait for a grant, or whose write
        hangs, is stopped: decode prefills it itself.
        """
        preempted = [known for attempt in step.preempted if (known := self._pushes.get(attempt)) is not None]
        in_time = self._settle(preempted)
        stuck = [known for known in preempted if known.push.parked or not in_time]
        for known in stuck:
            self._stop(known.push, known.sender, "preempted")
        if stuck and not self._settle(stuck):
            logger.warning("A write to decode outlives the preemption of its request, which fails")

    def _settle(self, pushes: Sequence[_Known]) -> bool:
        """Waits until the senders have been through everything queued for these pushes; false if one hangs."""
        deadline = time.monotonic() + self._waits.transfer
        barriers = [Barrier(threading.Event()) for _ in pushes]
        for known, barrier in zip(pushes, barriers, strict=True):
            known.sender.put(barrier)
        return all(barrier.reached.wait(max(0.0, deadline - time.monotonic())) for barrier in barriers)

    def start_step(self, step: PrefillStep) -> None:
        """Takes the scheduler half's news; runs before the step's forward is queued."""
        for new in step.new:
            self._begin(new)
        self._stop_attempts(step.aborted, "aborted")
        self._chunks = {}
        for chunk in step.chunks:
            self._plan(chunk)
        if self._chunks:
            self._gate.begin()

    def reach_layer(self, layer: str) -> None:
        """`wait_for_layer_load`: see `LayerGate.reach`."""
        self._gate.reach(layer)

    def save_layer(self, layer: str) -> None:
        """`save_kv_layer`: see `LayerGate.stage`. An order that can't be made safe fails the step's requests."""
        try:
            self._gate.stage(layer)
        except GateError as error:
            logger.error("Failing this step's pushes: %s", error)
            for sender, chunks in self._chunks.items():
                for chunk in chunks:
                    self._stop(chunk.push, sender, "gate")

    def end_step(self) -> None:
        """`wait_for_save`: every layer is accounted for."""
        self._gate.end()

    def take_finished(self, finished_req_ids: set[str], patience: float = 0.0) -> set[str]:
        """Requests whose push is over and that vLLM has finished: their blocks may be freed.

        With `patience` (seconds), waits that long for a push to end.
        """
        if patience and self._pushes:
            self._news.wait(patience)
        self._news.clear()
        for known in self._pushes.values():
            known.finished = known.finished or known.push.req_id in finished_req_ids
        over = [attempt for attempt, known in self._pushes.items() if known.finished and known.push.closed]
        return {self._pushes.pop(attempt).push.req_id for attempt in over}

    def close(self) -> None:
        """Ends all threads; the memory may be freed afterwards."""
        for sender in self._senders.values():
            sender.end()
        for sender in self._senders.values():
            sender.close(self._waits.transfer)
        self._link.close()
        self._transport.close()

    def _begin(self, new: NewPush) -> None:
        worker = new.request.workers[self._rank]
        key = (worker.address, worker.incarnation)
        if key not in self._senders:
            self._forget_idle()
            self._senders[key] = Sender(self._transport, self._layer_regions, self._tails, self._on_ended, self._tally)
        push = new_push(new.req_id, new.request, self._num_regions, self._proof, time.monotonic())
        self._pushes[push.attempt] = _Known(push, self._senders[key], key)
        self._link.add(key, push, self._senders[key])

    def _forget_idle(self) -> None:
        """Where a new decode worker comes, those that nothing is pushed to are given up, with their threads."""
        busy = {known.key for known in self._pushes.values()}
        for key in self._senders.keys() - busy:
            self._senders.pop(key).end()
            self._link.drop(key)

    def _plan(self, chunk: Chunk) -> None:
        known = self._pushes.get(chunk.attempt)
        if known is not None:
            offset = chunk.start - known.push.request.first_block
            part = PushChunk(known.push, offset, np.array(chunk.block_ids, np.int64))
            self._chunks.setdefault(known.sender, []).append(part)

    def _release(self, layer: int, event: Event | None) -> None:
        now = time.monotonic()
        for sender, chunks in self._chunks.items():
            sender.put(LayerReady(layer, chunks, event, now))

    def _on_ended(self, push: Push, report: m.Report) -> None:
        """In a sender's thread: a push is closed."""
        self._link.ended(push, report)
        self._news.set()

    def _stop_attempts(self, attempts: Sequence[bytes], reason: str) -> None:
        for attempt in attempts:
            known = self._pushes.get(attempt)
            if known is not None:
                self._stop(known.push, known.sender, reason)

    def _stop(self, push: Push, sender: Sender, reason: str) -> None:
        push.stop_reason = push.stop_reason or reason
        sender.put(Wake(push))
