"""One attempt on one prefill worker: what it may write, what it has written, and its one report.

The sender thread of the attempt's peer is the only one that writes for it and the only one that closes it; other
threads leave notes (a grant, a reason to stop). So no lock is held while bytes move, and nothing is written after the
report.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from layercast_connector.plan.runs import Runs, find_runs
from layercast_connector.protocol import messages as m
from layercast_connector.transport import tails as t

Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grant:
    """Permission to write to `blocks`, shape (n,), until `until` on this machine's monotonic clock."""

    blocks: Int
    until: float


@dataclass
class PushChunk:
    """The part of a push that one step completes. `offset` counts from the push's first block."""

    push: Push
    offset: int
    src: Int
    runs: Runs | None = None

    def runs_to(self, grant: Grant) -> Runs:
        """The chunk's runs, found once for all layers."""
        if self.runs is None:
            self.runs = find_runs(self.src, grant.blocks[self.offset : self.offset + self.src.size])
        return self.runs


@dataclass(eq=False)
class Push:
    """See the module.

    `sent` and `tails` have shapes (regions, blocks) and (regions, blocks, 16).
    """

    req_id: str
    request: m.PrefillRequest
    sent: npt.NDArray[np.bool_]
    tails: npt.NDArray[np.uint8] | None
    started: float
    grant: Grant | None = None
    asks: dict[int, float] = field(default_factory=dict)
    """When each unanswered `Ask` was sent, by number: a lease counts from there, so our clock never runs behind
    decode's. The link's own."""
    asked: int = 0
    stop_reason: str | None = None
    closed: bool = False
    quiesced: bool = True
    bytes_sent: int = 0
    last_event: float = 0.0
    last_write: float = 0.0
    parked: deque[tuple[PushChunk, int]] = field(default_factory=deque)
    """(chunk, layer) that wait for a grant or a longer lease. The sender's own."""

    @property
    def attempt(self) -> bytes:
        """The attempt's nonce."""
        return self.request.attempt

    @property
    def complete(self) -> bool:
        """Whether every cell was handed to the transport."""
        return bool(self.sent.all())

    def may_write(self, now: float) -> bool:
        """Whether a batch may be sent now: granted, not stopped, lease not over."""
        grant = self.grant
        return not self.closed and self.stop_reason is None and grant is not None and now < grant.until

    def mark(self, regions: slice, chunk: PushChunk, tails: t.Tails | None) -> None:
        """Notes that a chunk's blocks of these regions are being handed to the transport. Call before the write."""
        blocks = slice(chunk.offset, chunk.offset + chunk.src.size)
        self.sent[regions, blocks] = True
        if tails is not None and self.tails is not None:
            self.tails[regions, blocks] = tails.read(chunk.src, regions)

    def report(self, layers: int) -> m.Report:
        """The outcome as it stands."""
        ok = self.complete and self.quiesced and self.stop_reason is None
        digest = b"" if self.tails is None else t.digest(self.tails, self.sent)
        return m.Report(
            attempt=self.attempt,
            ok=ok,
            quiesced=self.quiesced,
            reason="" if ok else (self.stop_reason or "a write failed")[:1024],
            cells=t.pack_cells(self.sent),
            digest=digest,
            layers=layers if ok else 0,
            bytes_sent=self.bytes_sent,
            exposed=max(0.0, self.last_write - self.last_event) if ok else 0.0,
        )


def new_push(req_id: str, request: m.PrefillRequest, regions: int, proof: t.Proof, now: float) -> Push:
    """A push that has written nothing; `regions` tensors per block, `now` monotonic seconds."""
    shape = (regions, request.num_blocks)
    tails: Any = np.zeros((*shape, t.TAIL_BYTES), np.uint8) if proof is t.Proof.TAILS else None
    return Push(req_id, request, np.zeros(shape, np.bool_), tails, now)
