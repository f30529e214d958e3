"""What a worker half is made of, on either side: put together once by whoever starts it (vLLM, a test, a bench)."""

from __future__ import annotations

from dataclasses import dataclass

from layercast_connector import metrics
from layercast_connector.protocol.messages import Region
from layercast_connector.settings import Settings
from layercast_connector.sync.device import Stream
from layercast_connector.transport.base import Transport


@dataclass(frozen=True)
class WorkerParts:
    """Everything that a worker half needs from outside."""

    settings: Settings
    rank: int
    """Tensor-parallel rank: prefill rank r writes to decode rank r."""
    regions: list[Region]
    """The KV cache's memory in model order; whoever made this keeps it alive."""
    transport: Transport
    stream: Stream
    compatibility: str
    incarnation: str
    secret: bytes
    tally: metrics.Tally
