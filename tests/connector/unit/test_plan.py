"""The planner against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layercast_connector.plan.chunks import ChunkRange, blocks_for, chunk_range
from layercast_connector.plan.runs import RegionPair, describe, find_runs, join_descriptors, join_runs

IDS = st.lists(st.integers(0, 20), max_size=24, unique=True)


def blocks_copied(pairs: list[tuple[int, int]], region: RegionPair) -> dict[int, int]:
    """The reference: each byte's target address, one by one."""
    return {
        region.dst_base + dst * region.dst_stride + byte: region.src_base + src * region.src_stride + byte
        for src, dst in pairs
        for byte in range(region.block_bytes)
    }


def bytes_copied(batch: object) -> dict[int, int]:
    """What a batch of descriptors moves, byte by byte; no target byte twice."""
    moved: dict[int, int] = {}
    for src, dst, length in zip(batch.src, batch.dst, batch.length, strict=True):  # type: ignore[attr-defined]
        for byte in range(int(length)):
            assert int(dst) + byte not in moved
            moved[int(dst) + byte] = int(src) + byte
    return moved


@st.composite
def paired_blocks(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Blocks of both sides, with runs in them: shuffled slices of consecutive ids."""
    src, dst = draw(st.permutations(range(24))), draw(st.permutations(range(24)))
    if draw(st.booleans()):
        src = sorted(src)
    if draw(st.booleans()):
        dst = sorted(dst)
    return list(zip(src, dst, strict=True))[: draw(st.integers(0, 24))]


@st.composite
def region_pairs(draw: st.DrawFn) -> RegionPair:
    size = draw(st.integers(1, 4))
    gaps = st.sampled_from([0, 0, 1, 5])
    return RegionPair(draw(st.integers(0, 9)), size + draw(gaps), 10_000, size + draw(gaps), size)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0].copy(), both[:, 1].copy()


@settings(deadline=None)
@given(paired_blocks(), region_pairs())
def test_descriptors_move_exactly_the_blocks(pairs: list[tuple[int, int]], region: RegionPair) -> None:
    batch = describe(find_runs(*arrays(pairs)), region)
    assert bytes_copied(batch) == blocks_copied(pairs, region)
    assert batch.nbytes == len(pairs) * region.block_bytes


@settings(deadline=None)
@given(paired_blocks())
def test_runs_are_as_long_as_they_can_be(pairs: list[tuple[int, int]]) -> None:
    expected: list[list[int]] = []
    for src, dst in sorted(pairs):
        last = expected[-1] if expected else None
        if last is not None and (src, dst) == (last[0] + last[2], last[1] + last[2]):
            last[2] += 1
        else:
            expected.append([src, dst, 1])
    runs = find_runs(*arrays(pairs))
    assert np.stack([runs.src, runs.dst, runs.count], axis=1).tolist() == expected


@settings(deadline=None)
@given(paired_blocks(), st.integers(1, 4), st.lists(region_pairs(), min_size=1, max_size=3))
def test_requests_and_regions_go_in_one_batch(
    pairs: list[tuple[int, int]], requests: int, regions: list[RegionPair]
) -> None:
    regions = [
        RegionPair(r.src_base, r.src_stride, 10_000 * (index + 1), r.dst_stride, r.block_bytes)
        for index, r in enumerate(regions)
    ]
    runs = join_runs([find_runs(*arrays(pairs[part::requests])) for part in range(requests)])
    batch = join_descriptors([describe(runs, region) for region in regions])
    expected: dict[int, int] = {}
    for region in regions:
        expected |= blocks_copied(pairs, region)
    assert bytes_copied(batch) == expected


def test_addresses_above_four_gigabytes_are_kept() -> None:
    base = 0x7F00_0000_0000
    batch = describe(find_runs(*arrays([(2**20, 2**20)])), RegionPair(base, 2**21, base, 2**21, 2**21))
    assert batch.src.tolist() == [base + 2**41]


def test_blocks_that_dont_pair_up_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 source blocks but 1 target"):
        find_runs(np.arange(2), np.arange(1))


@settings(deadline=None)
@given(
    prompt=st.integers(1, 200),
    block=st.sampled_from([1, 3, 16]),
    decode_has=st.integers(0, 200),
    prefill_has=st.integers(0, 200),
    cuts=st.lists(st.integers(1, 60), max_size=12),
)
def test_each_block_is_pushed_once_in_the_step_that_computes_its_last_token(
    prompt: int, block: int, decode_has: int, prefill_has: int, cuts: list[int]
) -> None:
    """Steps of any size over a prompt of which either side may have a beginning; a block is final at its last token."""
    end = blocks_for(prompt, block)
    first = min(decode_has // block, end - 1)
    computed = min(prefill_has, prompt - 1)
    pushed, order, last = first, [], False
    for cut in [*cuts, prompt]:
        if last:
            break
        computed = min(prompt, computed + cut)
        step = chunk_range(pushed, computed, prompt, block, end)
        final = [index for index in range(first, end) if min((index + 1) * block, prompt) <= computed]
        order += range(step.start, step.stop)
        assert order == final
        pushed, last = step.stop, step.last
        assert last == (computed == prompt)
    assert order == list(range(first, end))


@pytest.mark.parametrize(
    ("computed", "pushed", "expected"),
    [
        pytest.param(31, 0, ChunkRange(0, 1, False), id="a chunk that ends in mid-block leaves that block out"),
        pytest.param(32, 0, ChunkRange(0, 2, False), id="one that ends with a block takes it"),
        pytest.param(35, 2, ChunkRange(2, 2, False), id="one within a block pushes nothing"),
        pytest.param(50, 2, ChunkRange(2, 4, True), id="the last one takes the part-filled block"),
        pytest.param(20, 3, ChunkRange(3, 3, False), id="what was pushed isn't pushed again after a preemption"),
        pytest.param(51, 3, ChunkRange(3, 4, True), id="tokens behind the prompt change nothing"),
    ],
)
def test_fifty_tokens_in_blocks_of_sixteen(computed: int, pushed: int, expected: ChunkRange) -> None:
    assert chunk_range(pushed, computed, 50, 16, 4) == expected
