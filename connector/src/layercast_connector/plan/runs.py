"""Block ids to transfer descriptors, without a Python loop over blocks.

Blocks that are neighbours on both sides become one descriptor, because each descriptor costs (25 µs on Mooncake's
TCP). The runs of a step are the same for all its layers, so they are found once; a layer adds only its base address.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """Runs of blocks that are contiguous on both sides: `count[i]` blocks from `src[i]` to `dst[i]`. Shape (runs,)."""

    src: Int
    dst: Int
    count: Int


@dataclass(frozen=True)
class Descriptors:
    """What one transfer call takes: addresses and lengths in bytes, shape (descriptors,) each."""

    src: Int
    dst: Int
    length: Int

    @property
    def nbytes(self) -> int:
        """Bytes that these descriptors move."""
        return int(self.length.sum())


@dataclass(frozen=True)
class RegionPair:
    """One tensor's place on both sides; strides and `block_bytes` in bytes."""

    src_base: int
    src_stride: int
    dst_base: int
    dst_stride: int
    block_bytes: int

    @property
    def packed(self) -> bool:
        """Whether neighbouring blocks are neighbouring bytes on both sides, so that a run is one descriptor."""
        return self.src_stride == self.block_bytes == self.dst_stride


def find_runs(src_blocks: Int, dst_blocks: Int) -> Runs:
    """Groups pairs of blocks into maximal runs that ascend by one on both sides.

    Pairs are sorted first: a block pool in use hands blocks out in descending order as often as not, and the order of
    the writes doesn't matter.

    Args:
        src_blocks: prefill's block ids, shape (n,).
        dst_blocks: decode's block ids, shape (n,), paired with `src_blocks`.

    Raises:
        ValueError: the shapes differ.
    """
    if src_blocks.shape != dst_blocks.shape:
        raise ValueError(f"{src_blocks.shape[0]} source blocks but {dst_blocks.shape[0]} target blocks")
    if not src_blocks.size:
        return Runs(src_blocks, dst_blocks, src_blocks)
    order = np.argsort(src_blocks, kind="stable")
    src_blocks, dst_blocks = src_blocks[order], dst_blocks[order]
    breaks = (np.diff(src_blocks) != 1) | (np.diff(dst_blocks) != 1)
    starts = np.concatenate(([0], np.flatnonzero(breaks) + 1))
    count = np.diff(np.concatenate((starts, [src_blocks.size])))
    return Runs(src_blocks[starts], dst_blocks[starts], count)


def join_runs(parts: list[Runs]) -> Runs:
    """All runs of several requests, for one transfer call."""
    if len(parts) == 1:
        return parts[0]
    return Runs(
        np.concatenate([part.src for part in parts]),
        np.concatenate([part.dst for part in parts]),
        np.concatenate([part.count for part in parts]),
    )


def describe(runs: Runs, region: RegionPair) -> Descriptors:
    """The descriptors that copy `runs` of one region."""
    if not region.packed:
        runs = _single_blocks(runs)
    return Descriptors(
        region.src_base + runs.src * region.src_stride,
        region.dst_base + runs.dst * region.dst_stride,
        runs.count * region.block_bytes,
    )


def join_descriptors(parts: list[Descriptors]) -> Descriptors:
    """One batch for all the regions of a layer."""
    if len(parts) == 1:
        return parts[0]
    return Descriptors(
        np.concatenate([part.src for part in parts]),
        np.concatenate([part.dst for part in parts]),
        np.concatenate([part.length for part in parts]),
    )


def _single_blocks(runs: Runs) -> Runs:
    """The same blocks, one run each: strided regions can't be coalesced."""
    offset = np.arange(int(runs.count.sum())) - np.repeat(np.cumsum(runs.count) - runs.count, runs.count)
    return Runs(
        np.repeat(runs.src, runs.count) + offset,
        np.repeat(runs.dst, runs.count) + offset,
        np.ones(offset.size, np.int64),
    )
