"""Proof of arrival on transports whose completion doesn't promise it.

On Mooncake's TCP a returned write sits in a socket buffer: the receiver may not have it for milliseconds, or, when it
is stopped, for as long as it likes. So decode stamps the tail of every block with random bytes before it grants, and
prefill reports a digest of the tails that it sent. A block's bytes land in order, so a tail that is wholly the new one
means that the block is there; and because no sender knows the stamp, the new tail differs from the old one even where
a block is written with what it held before. When the digest over all reported cells matches, nothing of the attempt
is under way any more: that makes it proof of arrival and proof that the writer's bytes have drained, in one.

`completion` is for transports whose completed write is in the receiver's memory (RDMA reliable connections; Ascend's
HCCS/RoCE path through Mooncake's `ascend` protocol): there is nothing to prove.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from layercast_connector.protocol.messages import Region

TAIL_BYTES = 16

Bytes = npt.NDArray[np.uint8]
Cells = npt.NDArray[np.bool_]
Blocks = npt.NDArray[np.int64]


class Proof(enum.StrEnum):
    """How arrival is proven."""

    TAILS = "tails"
    COMPLETION = "completion"


def proof_for(protocol: str) -> Proof:
    """The proof that a Mooncake protocol needs."""
    return Proof.TAILS if protocol == "tcp" else Proof.COMPLETION


class Tails:
    """The last bytes of every block of every region, as views of host memory.

    The caller keeps the memory alive for as long as this object.

    Raises:
        ValueError: a block is smaller than its tail would be.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self._views = [_tail_view(region) for region in regions]

    def stamp(self, blocks: Blocks, stamp: bytes) -> None:
        """Overwrites the tails of `blocks`, shape (n,), in every region with the 16 bytes of `stamp`."""
        row = np.frombuffer(stamp, np.uint8)
        for view in self._views:
            view[blocks] = row

    def holds(self, stamp: bytes, region: int, block: int) -> bool:
        """Whether the stamp is still there: then nothing has arrived in that place."""
        return bool(self._views[region][block].tobytes() == stamp)

    def read(self, blocks: Blocks, regions: slice = slice(None)) -> Bytes:
        """The tails of `blocks`, shape (regions, n, 16)."""
        return np.stack([view[blocks] for view in self._views[regions]])


def digest(tails: Bytes, cells: Cells) -> bytes:
    """A digest of the tails, shape (regions, n, 16), of those cells, shape (regions, n), that are set."""
    return hashlib.blake2b(tails[cells].tobytes(), digest_size=16).digest()


def missing(tails: Bytes, cells: Cells, stamp: bytes) -> tuple[int, int] | None:
    """The last of the set cells whose tail is still the stamp, as (region, index of the block); None if none is."""
    places = np.argwhere(cells & (tails == np.frombuffer(stamp, np.uint8)).all(axis=2))
    return (int(places[-1, 0]), int(places[-1, 1])) if places.size else None


def pack_cells(cells: Cells) -> bytes:
    """The bitmap of a `Report`."""
    return np.packbits(cells).tobytes()


def unpack_cells(data: bytes, regions: int, blocks: int) -> Cells:
    """The cells of a `Report`.

    Raises:
        ValueError: the bitmap isn't of (regions, blocks).
    """
    if len(data) != -(-regions * blocks // 8):
        raise ValueError(f"a bitmap of {len(data)} bytes for {regions} x {blocks} cells")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=regions * blocks)
    return bits.astype(np.bool_).reshape(regions, blocks)


def _tail_view(region: Region) -> Bytes:
    """A view of shape (num_blocks, 16) over the region's memory."""
    if region.block_bytes < TAIL_BYTES:
        raise ValueError(f"a KV block of layer {region.layer} has {region.block_bytes} bytes, too few for a proof")
    extent = region.stride * (region.num_blocks - 1) + region.block_bytes
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * extent).from_address(region.base))
    offset = region.block_bytes - TAIL_BYTES
    return np.lib.stride_tricks.as_strided(memory[offset:], (region.num_blocks, TAIL_BYTES), (region.stride, 1))
