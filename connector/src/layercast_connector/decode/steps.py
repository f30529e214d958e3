"""What decode's scheduler half tells its worker half with each engine step, and hears back."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Receive:
    """Expect an attempt's KV in these blocks, in prompt order."""

    req_id: str
    attempt: bytes
    block_ids: list[int]


@dataclass(frozen=True)
class Stop:
    """Give an attempt up: the dispatch failed, or (`aborted`) the request itself is gone."""

    attempt: bytes
    reason: str
    aborted: bool


@dataclass
class DecodeStep:
    """One step's news for the workers, in the order in which they are applied."""

    receive: list[Receive] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)
    stop: list[Stop] = field(default_factory=list)
