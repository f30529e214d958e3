"""What the sender needs of a transfer engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from layercast_connector.plan.runs import Descriptors
from layercast_connector.protocol.messages import Region


class TransferError(RuntimeError):
    """A write failed or timed out. Its bytes may still land later: the attempt isn't quiesced."""


class Transport(Protocol):
    """One-sided writes from registered local memory into registered memory of a peer."""

    @property
    def session(self) -> str:
        """The name by which peers reach this engine."""

    def register(self, regions: Iterable[Region]) -> None:
        """Makes local memory readable and writable for transfers. Raises `TransferError`."""

    def write(self, session: str, batch: Descriptors) -> None:
        """Writes a batch and returns when the engine calls it done. Raises `TransferError`.

        What "done" promises depends on the protocol: see `layercast_connector.transport.tails`.
        """

    def close(self) -> None:
        """Ends all transfers; registered memory may be freed afterwards."""
