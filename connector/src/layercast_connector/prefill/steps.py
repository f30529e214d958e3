"""What prefill's scheduler half tells its worker half with each engine step."""

from __future__ import annotations

from dataclasses import dataclass, field

from layercast_connector.protocol.messages import PrefillRequest


@dataclass(frozen=True)
class NewPush:
    """A request whose KV goes to a decode engine; its first chunk is in this step."""

    req_id: str
    request: PrefillRequest


@dataclass(frozen=True)
class Chunk:
    """Blocks that this step completes: `block_ids[i]` holds the prompt's block `start + i`.

    `start` counts from the prompt's beginning. `last` ends the push.
    """

    attempt: bytes
    start: int
    block_ids: list[int]
    last: bool


@dataclass
class PrefillStep:
    """One step's news for the workers."""

    new: list[NewPush] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    preempted: list[bytes] = field(default_factory=list)
    aborted: list[bytes] = field(default_factory=list)
