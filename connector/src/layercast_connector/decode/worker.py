"""Decode's worker half: owns the memory that prefill writes, and says when it may be written, used and freed."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from layercast_connector.control import ControlServer, DropLog
from layercast_connector.decode.landings import Landings, Outbox
from layercast_connector.decode.steps import DecodeStep
from layercast_connector.parts import WorkerParts
from layercast_connector.protocol import messages as m
from layercast_connector.protocol.envelope import Codec
from layercast_connector.recent import remember
from layercast_connector.settings import url_host
from layercast_connector.transport.tails import proof_for

_MAX_WRITERS = 4096


@dataclass(frozen=True)
class Outcome:
    """What ended in a step: ids for vLLM, the blocks that must not be used, and reports for the scheduler half."""

    finished: set[str]
    bad_blocks: set[int]
    reports: dict[str, m.Report]
    failures: dict[str, str]


class Receptionist:
    """The handler of a decode worker's control port: greets writers, then passes their messages on."""

    def __init__(self, landings: Landings, regions: m.Regions, compatibility: str) -> None:
        self._landings = landings
        self._regions = regions
        self._compatibility = compatibility
        self._greeted: OrderedDict[bytes, None] = OrderedDict()

    def on_message(self, peer: bytes, message: m.ToDecode) -> list[tuple[bytes, Any]]:
        """Answers a `Hello`; only peers that were accepted get grants."""
        if isinstance(message, m.Hello):
            return [(peer, self._greet(peer, message))]
        if peer in self._greeted or isinstance(message, m.Report):  # a refused peer reports that it won't write
            return [*self._landings.on_message(peer, message)]
        if isinstance(message, m.Ask):
            return [(peer, m.Deny(message.attempt, "say hello first"))]
        return []

    def tick(self) -> Outbox:
        """See `Landings.tick`."""
        return self._landings.tick()

    def wait_seconds(self) -> float:
        """See `Landings.wait_seconds`."""
        return self._landings.wait_seconds()

    def _greet(self, peer: bytes, hello: m.Hello) -> m.Regions | m.Refused:
        if hello.version != m.PROTOCOL_VERSION:
            return m.Refused(f"protocol version {hello.version} on prefill, {m.PROTOCOL_VERSION} on decode")
        if hello.compatibility != self._compatibility:
            return m.Refused(f"prefill has [{hello.compatibility}], decode has [{self._compatibility}]"[:1024])
        remember(self._greeted, peer, None, _MAX_WRITERS)
        return self._regions


class DecodeWorker:
    """What vLLM's hooks call on decode, once per step.

    Raises:
        OSError: a port is taken.
        TransferError: the memory can't be registered.
    """

    def __init__(self, parts: WorkerParts) -> None:
        settings, regions, tally = parts.settings, parts.regions, parts.tally
        parts.transport.register(regions)
        proof = proof_for(settings.protocol)
        self._landings = Landings(regions, proof, parts.stream, parts.incarnation, settings.timeouts, tally)
        table = m.Regions(parts.incarnation, parts.transport.session, proof, regions)
        self._transport = parts.transport
        port = settings.control_port + 1 + parts.rank
        self.place = m.Worker(f"tcp://{url_host(settings.advertise_host)}:{port}", parts.incarnation)
        """Where prefill workers reach this one."""
        self._server = ControlServer(
            port,
            Codec[m.ToDecode](parts.secret, m.ToDecode),
            Receptionist(self._landings, table, parts.compatibility),
            DropLog(tally),
        )

    def start_step(self, step: DecodeStep) -> None:
        """Takes the scheduler half's news; runs before the step's forward is queued."""
        for receive in step.receive:
            self._landings.register(receive.req_id, receive.attempt, np.array(receive.block_ids, np.int64))
        for attempt in step.answered:
            self._landings.answered(attempt)
        for stop in step.stop:
            self._landings.stop(stop.attempt, stop.reason, aborted=stop.aborted)

    def finish_step(self, patience: float = 0.0) -> Outcome:
        """What ended since the last step; see `Landings.take_finished` for `patience` (seconds).

        Bad blocks are reported in the same step that reports their request as finished: vLLM then still holds them
        for it, so they can't be mistaken for a later owner's.
        """
        ended = self._landings.take_finished(patience)
        for one in ended:
            if one.failure is None:
                self._on_arrived(one.req_id, one.blocks)
        failed = [one for one in ended if one.failure is not None]
        bad = itertools.chain.from_iterable(one.blocks.tolist() for one in failed if not one.aborted)
        return Outcome(
            {one.req_id for one in ended},
            set(bad),
            {one.req_id: one.report for one in ended if one.failure is None and one.report is not None},
            {one.req_id: one.failure for one in failed if one.failure is not None},
        )

    def close(self) -> None:
        """Stops answering; the memory may be freed afterwards."""
        self._server.close()
        self._transport.close()

    def _on_arrived(self, req_id: str, block_ids: npt.NDArray[np.int64]) -> None:
        """Called once per attempt after arrival is proven, before vLLM hears of it. For tests to override."""
