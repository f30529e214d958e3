"""Proof of arrival: only when every byte of every reported block is there do the tails say so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layercast_connector.protocol.messages import Region
from layercast_connector.transport.tails import (
    TAIL_BYTES,
    Proof,
    Tails,
    digest,
    missing,
    pack_cells,
    proof_for,
    unpack_cells,
)

from tests.connector.unit.builders import regions_over, tensors

BLOCKS = np.array([5, 2, 9], np.int64)
ALL = np.ones((2, 3), np.bool_)
STAMP = bytes(range(100, 100 + TAIL_BYTES))


class Pair:
    """Memory on both sides; decode's is stamped, and prefill's digest is known."""

    def __init__(self, *, equal_before: bool = False) -> None:
        self.source, self.target = tensors(blocks=12), tensors(blocks=13)
        if equal_before:
            self.write(self.target)
        self.tails = Tails(regions_over(self.target))
        self.tails.stamp(BLOCKS, STAMP)
        self.sent = digest(Tails(regions_over(self.source)).read(BLOCKS), ALL)

    def write(self, target: list[np.ndarray], regions: slice = slice(None), blocks: slice = slice(None)) -> None:
        for one, source in list(zip(target, self.source, strict=True))[regions]:
            one[BLOCKS[blocks]] = source[BLOCKS[blocks]]

    def proven(self) -> bool:
        return digest(self.tails.read(BLOCKS), ALL) == self.sent


@pytest.mark.parametrize("equal_before", [False, True], ids=["other bytes before", "the same bytes before"])
def test_full_arrival_proves_and_nothing_less(equal_before: bool) -> None:
    pair = Pair(equal_before=equal_before)
    assert not pair.proven(), "nothing has come"
    pair.write(pair.target, regions=slice(0, 1))
    assert not pair.proven(), "a region is missing"
    pair.write(pair.target, blocks=slice(0, 2))
    assert not pair.proven(), "a block is missing"
    pair.write(pair.target)
    assert pair.proven()


@settings(deadline=None)
@given(region=st.integers(0, 1), block=st.integers(0, 2), late=st.integers(1, TAIL_BYTES))
def test_a_partly_landed_tail_is_not_proof(region: int, block: int, late: int) -> None:
    """A block's bytes land in order: the last `late` ones are still under way."""
    pair = Pair()
    pair.write(pair.target)
    stamped = np.frombuffer(STAMP, np.uint8)[-late:]
    place = pair.target[region][BLOCKS[block], -late:]
    if (place == stamped).all():
        return
    place[:] = stamped
    assert not pair.proven()


def test_a_stamp_touches_the_tails_of_the_blocks_and_nothing_else() -> None:
    memory = tensors()
    before = [one.copy() for one in memory]
    Tails(regions_over(memory)).stamp(BLOCKS, STAMP)
    for one, old in zip(memory, before, strict=True):
        assert (one[BLOCKS, -TAIL_BYTES:] == np.frombuffer(STAMP, np.uint8)).all()
        one[BLOCKS, -TAIL_BYTES:] = old[BLOCKS, -TAIL_BYTES:]
        assert (one == old).all()


def test_the_last_place_where_nothing_has_come_is_named() -> None:
    pair = Pair()
    assert missing(pair.tails.read(BLOCKS), ALL, STAMP) == (1, 2)
    assert pair.tails.holds(STAMP, 1, int(BLOCKS[2]))
    pair.write(pair.target, regions=slice(1, 2))
    assert missing(pair.tails.read(BLOCKS), ALL, STAMP) == (0, 2)
    assert not pair.tails.holds(STAMP, 1, int(BLOCKS[2]))
    only_first = np.array([[1, 0, 0], [1, 1, 1]], np.bool_)
    assert missing(pair.tails.read(BLOCKS), only_first, STAMP) == (0, 0)
    pair.write(pair.target)
    assert missing(pair.tails.read(BLOCKS), ALL, STAMP) is None


def test_tails_of_strided_regions_are_at_the_ends_of_their_blocks() -> None:
    memory = np.arange(4 * 80, dtype=np.int64).astype(np.uint8).reshape(4, 80)
    region = Region("layer", 0, int(memory.ctypes.data) + 8, 80, 40, 4)
    assert (Tails([region]).read(np.arange(4))[0] == memory[:, 32:48]).all()


def test_tails_of_some_regions_can_be_read_alone() -> None:
    memory = tensors(regions=3)
    tails = Tails(regions_over(memory))
    assert (tails.read(BLOCKS, slice(1, 2)) == tails.read(BLOCKS)[1:2]).all()


def test_a_block_smaller_than_a_tail_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer\.0.*8 bytes"):
        Tails(regions_over(tensors(block_bytes=8)))


def test_the_digest_covers_the_reported_cells_only() -> None:
    tails = np.zeros((2, 3, TAIL_BYTES), np.uint8)
    cells = np.array([[1, 0, 1], [0, 0, 1]], np.bool_)
    before = digest(tails, cells)
    tails[0, 1] = 7
    assert digest(tails, cells) == before
    tails[1, 2] = 7
    assert digest(tails, cells) != before


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.randoms(use_true_random=False))
def test_a_bitmap_comes_back_as_it_was(regions: int, blocks: int, random: object) -> None:
    cells = np.array([[random.random() < 0.5 for _ in range(blocks)] for _ in range(regions)])  # type: ignore[attr-defined]
    assert (unpack_cells(pack_cells(cells), regions, blocks) == cells).all()


@pytest.mark.parametrize("data", [b"", b"12", b"1234567"], ids=["empty", "too short", "too long"])
def test_a_bitmap_of_another_size_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(data)} bytes for 4 x 6 cells"):
        unpack_cells(data, 4, 6)


@pytest.mark.parametrize(("protocol", "proof"), [("tcp", Proof.TAILS), ("ascend", Proof.COMPLETION)])
def test_the_transport_says_which_proof_it_needs(protocol: str, proof: Proof) -> None:
    assert proof_for(protocol) is proof
