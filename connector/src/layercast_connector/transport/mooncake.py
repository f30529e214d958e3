"""Mooncake's transfer engine as a `Transport`.

A write to an address that the receiver never registered can still "succeed" on TCP, so every address here comes from
an authenticated region table and every block id is checked against it before.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

from layercast_connector.plan.runs import Descriptors
from layercast_connector.protocol.messages import Region
from layercast_connector.transport.base import TransferError


class MooncakeTransport:
    """One Mooncake engine per worker process.

    Args:
        host: address that peers use to reach this process.
        protocol: `tcp` or `ascend`.
        transfer_timeout: seconds after which Mooncake gives a write up. It reads this once per process.

    Raises:
        TransferError: the engine doesn't start.
    """

    def __init__(self, host: str, protocol: str, transfer_timeout: float) -> None:
        os.environ["MC_TRANSFER_TIMEOUT"] = str(max(1, math.ceil(transfer_timeout)))
        os.environ.setdefault("MC_TCP_ENABLE_CONNECTION_POOL", "1")
        os.environ.setdefault("ASCEND_TRANSFER_TIMEOUT", str(math.ceil(transfer_timeout * 1000)))
        from mooncake.engine import TransferEngine  # only engines have it

        self._engine: Any = TransferEngine()
        if self._engine.initialize(host, "P2PHANDSHAKE", protocol, "") != 0:
            raise TransferError(f"Mooncake's engine didn't start on {host} with protocol {protocol!r}")
        self._session = f"{host}:{self._engine.get_rpc_port()}"
        self._registered: list[int] = []

    @property
    def session(self) -> str:
        """`host:rpc_port`."""
        return self._session

    def register(self, regions: Iterable[Region]) -> None:
        """Registers each region's whole memory once, even where regions share a tensor."""
        for base, length in _extents(regions):
            if self._engine.register_memory(base, length) != 0:
                raise TransferError(f"Mooncake can't register {length} bytes of KV cache")
            self._registered.append(base)

    def write(self, session: str, batch: Descriptors) -> None:
        """One synchronous batch; the GIL is released meanwhile."""
        code = self._engine.batch_transfer_sync_write(
            session, batch.src.tolist(), batch.dst.tolist(), batch.length.tolist()
        )
        if code != 0:
            raise TransferError(f"Mooncake's write of {batch.nbytes} bytes to {session} returned {code}")

    def close(self) -> None:
        """Unregisters the memory."""
        for base in self._registered:
            self._engine.unregister_memory(base)
        self._registered.clear()


def _extents(regions: Iterable[Region]) -> list[tuple[int, int]]:
    """Disjoint (base, length) pairs that cover all regions, merged where they overlap or interleave."""
    spans = sorted((r.base, r.base + r.stride * (r.num_blocks - 1) + r.block_bytes) for r in regions)
    merged: list[list[int]] = []
    for start, stop in spans:
        if merged and start < merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    return [(start, stop - start) for start, stop in merged]
